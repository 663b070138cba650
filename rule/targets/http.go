package targets

import (
	"net/http"

	commoncfg "github.com/prometheus/common/config"
)

// Client makes a client of services. name is what it is called in errors.
func (c HTTPConfig) Client(name string) (*http.Client, error) {
	config, err := c.Prometheus()
	if err != nil {
		return nil, err
	}
	return commoncfg.NewClientFromConfig(config, name)
}
