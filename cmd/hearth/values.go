package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// duration is a flag value that understands days, as Prometheus does: 15d, 1h30m, 0s.
type duration struct{ to *time.Duration }

// Set parses s.
func (d duration) Set(s string) error {
	v, err := model.ParseDuration(s)
	*d.to = time.Duration(v)
	return err
}

// String is the present value.
func (d duration) String() string {
	if d.to == nil {
		return ""
	}
	return model.Duration(*d.to).String()
}

// durationFlag binds a flag to *to, whose present value is the default.
func durationFlag(c *kingpin.CmdClause, name, help string, to *time.Duration) {
	c.Flag(name, help).Default(model.Duration(*to).String()).SetValue(duration{to})
}

// labelSet is a repeatable flag value name="value".
type labelSet struct{ to *labels.Labels }

// Set adds one label.
func (l labelSet) Set(s string) error {
	name, value, ok := strings.Cut(s, "=")
	if !ok || !model.UTF8Validation.IsValidLabelName(name) {
		return fmt.Errorf("%q: want name=\"value\"", s)
	}
	if unquoted, ok := strings.CutPrefix(value, `"`); ok {
		value = strings.TrimSuffix(unquoted, `"`)
	}
	*l.to = labels.NewBuilder(*l.to).Set(name, value).Labels()
	return nil
}

// String is the labels so far.
func (l labelSet) String() string {
	if l.to == nil {
		return ""
	}
	return l.to.String()
}

// IsCumulative says that the flag may be given more than once.
func (l labelSet) IsCumulative() bool { return true }

// content is a pair of flags, --name and --name-file, for text that is a configuration.
type content struct{ name, text, file string }

// bind adds both flags.
func (c *content) bind(cmd *kingpin.CmdClause, name, help string) {
	c.name = name
	cmd.Flag(name, help).PlaceHolder("YAML").StringVar(&c.text)
	cmd.Flag(name+"-file", "File with the content of --"+name+".").PlaceHolder("FILE").StringVar(&c.file)
}

// read returns the content, nil when neither flag is set.
func (c *content) read() ([]byte, error) {
	switch {
	case c.text != "" && c.file != "":
		return nil, fmt.Errorf("--%s and --%s-file are both set: use one", c.name, c.name)
	case c.file != "":
		b, err := os.ReadFile(c.file)
		if err != nil {
			return nil, fmt.Errorf("--%s-file: %w", c.name, err)
		}
		return b, nil
	case c.text != "":
		return []byte(c.text), nil
	}
	return nil, nil
}
