package gossip

import (
	"os"
	"time"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// NewInstance is an identity for a process without data, which may be another one at each start. id is as in LoadInstance.
func NewInstance(id string) (Instance, error) {
	if id == "" {
		id = newID()
	}
	if !validID.MatchString(id) {
		return Instance{}, errs.E(errs.Invalid, "instance id %q: want 1 to 150 letters, digits, '.', '_' or '-'", id)
	}
	return Instance{ID: id, Tokens: randomTokens(numTokens), Since: time.Unix(time.Now().Unix(), 0)}, nil
}

// newID is the host's name and four random characters.
func newID() string {
	host, err := os.Hostname()
	if err != nil || !validID.MatchString(host) || len(host) > 140 {
		host = "hearth"
	}
	return host + "-" + randomText(4)
}
