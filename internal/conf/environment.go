package conf

import (
	"fmt"
	"os"
	"regexp"
)

var reference = regexp.MustCompile(`\$\(([a-zA-Z_0-9]+)\)`)

// ExpandEnv replaces $(VAR) in a configuration from the environment; name is what errors call it. A variable that is
// not set is an error, as in Thanos: a secret must not become "".
func ExpandEnv(name string, content []byte) ([]byte, error) {
	var missing error
	out := reference.ReplaceAllFunc(content, func(ref []byte) []byte {
		variable := string(reference.FindSubmatch(ref)[1])
		value, ok := os.LookupEnv(variable)
		if !ok && missing == nil {
			missing = fmt.Errorf("%s: $(%s): the environment has no such variable", name, variable)
		}
		return []byte(value)
	})
	return out, missing
}
