package main

import (
	"fmt"
	"math"
	"net"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/conf"
	"github.com/hearth-metrics/hearth/internal/secret"
)

// duration is a flag value that understands days, as Prometheus does: 15d, 1h30m, 0s.
type duration struct{ to *time.Duration }

// Set parses s.
func (d duration) Set(s string) error {
	v, err := model.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("%q is not a duration: want numbers with units from large to small, such as 30s, 1h30m or 15d", s)
	}
	*d.to = time.Duration(v)
	return nil
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

// otherName is the value of a flag that is another name of one whose value is in *to. An empty value changes nothing.
type otherName struct {
	to    *string
	given string
}

// Set gives the flag with the usual name the value.
func (o *otherName) Set(s string) error {
	if o.given = s; s != "" {
		*o.to = s
	}
	return nil
}

// String is what was given.
func (o *otherName) String() string { return o.given }

// otherFlag adds name as another name of the flag of, whose value is in *to.
func otherFlag(c *kingpin.CmdClause, name, of string, to *string) {
	c.Flag(name, "Another name of --"+of+".").Hidden().NoEnvar().SetValue(&otherName{to: to})
}

// labelSet is a repeatable flag value name="value".
type labelSet struct{ to *labels.Labels }

// Set adds one label.
func (l labelSet) Set(s string) error {
	name, value, ok := strings.Cut(s, "=")
	if !ok || !model.UTF8Validation.IsValidLabelName(name) {
		return fmt.Errorf(`%q: want name="value", such as replica="0"`, s)
	}
	if unquoted, ok := strings.CutPrefix(value, `"`); ok {
		if unescaped, err := strconv.Unquote(value); err == nil { // as Thanos reads it
			value = unescaped
		} else if value, ok = strings.CutSuffix(unquoted, `"`); !ok {
			return fmt.Errorf(`%q: the quote is not closed: want name="value"`, s)
		}
	}
	if l.to.Has(name) {
		return fmt.Errorf("label %s is given twice", name)
	}
	if !utf8.ValidString(value) {
		return fmt.Errorf("label %s: its value is not text in UTF-8", name)
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

// content is a pair of flags, --name and --name-file, for a configuration as text. The text may hold secrets, so it is
// never shown.
type content struct {
	name string
	text secret.Text
	file string
}

// bind adds both flags.
func (c *content) bind(cmd flagger, name, help string) {
	c.name = name
	cmd.Flag(name, help).PlaceHolder("YAML").SetValue(&c.text)
	cmd.Flag(name+"-file", "File with the content of --"+name+".").PlaceHolder("FILE").StringVar(&c.file)
}

// given reports whether one of the flags is set.
func (c *content) given() bool { return c.text.Reveal() != "" || c.file != "" }

// where is what errors call the content.
func (c *content) where() string {
	switch {
	case c.file != "":
		return "--" + c.name + "-file: " + c.file
	case c.given():
		return "--" + c.name
	}
	return c.name
}

// read returns the content, nil when neither flag is set.
func (c *content) read() ([]byte, error) {
	switch {
	case c.text.Reveal() != "" && c.file != "":
		return nil, fmt.Errorf("--%s and --%s-file are both set: use one", c.name, c.name)
	case c.file != "":
		b, err := conf.ReadFile(c.file)
		if err != nil {
			return nil, fmt.Errorf("--%s-file: %w", c.name, err)
		}
		return b, nil
	case c.text.Reveal() != "":
		return []byte(c.text.Reveal()), nil
	}
	return nil, nil
}

// byteSize is a number of bytes: 512MB, 2GB and so on are powers of two, as in Thanos; a bare number is bytes.
type byteSize int64

// Set parses s.
func (b *byteSize) Set(s string) error {
	n, err := conf.ParseBytes(s)
	if err != nil {
		return fmt.Errorf("%q: %w", s, err)
	}
	*b = byteSize(n)
	return nil
}

// String is the number.
func (b *byteSize) String() string { return strconv.FormatInt(int64(*b), 10) }

// ratio is a number above 0 and up to 1.
type ratio float64

// Set parses s.
func (r *ratio) Set(s string) error {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || !(v > 0 && v <= 1) {
		return fmt.Errorf("%q: want a number above 0 and up to 1", s)
	}
	*r = ratio(v)
	return nil
}

// String is the number.
func (r *ratio) String() string { return strconv.FormatFloat(float64(*r), 'g', -1, 64) }

// address is a flag value host:port. A host that is left out stands for all addresses of this machine.
type address struct{ to *string }

// Set checks and takes s.
func (a address) Set(s string) error {
	if err := hostPort(s); err != nil {
		return err
	}
	*a.to = s
	return nil
}

// String is the present value.
func (a address) String() string {
	if a.to == nil {
		return ""
	}
	return *a.to
}

// hostPort is the error of an address that is not host:port.
func hostPort(s string) error {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("%q: want host:port, such as 0.0.0.0:10902", s)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q: the port must be a number from 0 to 65535", s)
	}
	return nil
}

// addressList is a flag value that may be given several times. check is the error of an address that is not valid.
type addressList struct {
	to    *[]string
	check func(string) error
}

// Set checks s and adds it. An empty one that check accepts is none: charts leave a flag so where they have no value.
func (l addressList) Set(s string) error {
	if err := l.check(s); err != nil {
		return err
	}
	if s = strings.TrimSpace(s); s == "" {
		return nil
	}
	*l.to = append(*l.to, s)
	return nil
}

// String is all of them.
func (l addressList) String() string {
	if l.to == nil {
		return ""
	}
	return strings.Join(*l.to, ",")
}

// IsCumulative says that the flag may be given more than once.
func (l addressList) IsCumulative() bool { return true }

// endpointAddress is the error of a StoreAPI to query that is neither host:port nor a name to look up. "" is none.
func endpointAddress(s string) error {
	kind, rest, dynamic := strings.Cut(s, "+")
	switch {
	case strings.TrimSpace(s) == "":
		return nil
	case !dynamic:
		return hostPort(s)
	case kind == "dns":
		return hostPort(rest)
	case (kind == "dnssrv" || kind == "dnssrvnoa") && rest != "":
		return nil
	}
	return fmt.Errorf("%q: want host:port, dns+name:port or dnssrv+name", s)
}

// whole is a flag value that is a whole number, which may be written as 1e6.
type whole[T int | int64] struct{ to *T }

// Set parses s.
func (w whole[T]) Set(s string) error {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		x, floatErr := strconv.ParseFloat(s, 64)
		if floatErr != nil || x != math.Trunc(x) || math.Abs(x) >= math.MaxInt64 {
			return fmt.Errorf("%q is not a whole number, or it is too large", s)
		}
		n = int64(x)
	}
	*w.to = T(n)
	return nil
}

// String is the number.
func (w whole[T]) String() string {
	if w.to == nil {
		return ""
	}
	return strconv.FormatInt(int64(*w.to), 10)
}
