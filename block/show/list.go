package show

import (
	"fmt"
	"io"
	"text/template"
	"time"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/internal/errs"
)

// Lister writes blocks one by one.
type Lister struct {
	// All says that Write needs the whole meta.json of a block, and not only what a view has of it.
	All bool
	// Write writes one block.
	Write func(w io.Writer, m *block.Meta) error
}

// NewLister returns the lister of a format: "" is an id per line, "wide" and "json" are what they say, and anything
// else is a Go template that is executed over each meta. A template that cannot be parsed is of kind Invalid.
func NewLister(format string) (Lister, error) {
	switch format {
	case "":
		return Lister{Write: func(w io.Writer, m *block.Meta) error {
			_, err := fmt.Fprintln(w, m.ULID)
			return err
		}}, nil
	case "wide":
		return Lister{Write: writeWide}, nil
	case "json":
		return Lister{All: true, Write: func(w io.Writer, m *block.Meta) error { return m.Write(w) }}, nil
	}
	t, err := template.New("output").Parse(format)
	if err != nil {
		return Lister{}, errs.E(errs.Invalid, "template: %w", err)
	}
	return Lister{All: true, Write: func(w io.Writer, m *block.Meta) error {
		if err := t.Execute(w, m); err != nil {
			return errs.E(errs.Invalid, "template: %w", err)
		}
		_, err := fmt.Fprintln(w)
		return err
	}}, nil
}

func writeWide(w io.Writer, m *block.Meta) error {
	from, until := seconds(m.MinTime), seconds(m.MaxTime)
	_, err := fmt.Fprintf(w, "%s -- %s - %s Diff: %s, Compaction: %d, Downsample: %d, Source: %s\n", m.ULID,
		from.Format(time.RFC3339), until.Format(time.RFC3339), until.Sub(from), m.Compaction.Level,
		m.Thanos.Downsample.Resolution, escape(m.Thanos.Source))
	return err
}

// seconds is the second that a time in ms is in. Thanos prints times so.
func seconds(ms int64) time.Time { return time.Unix(ms/1000, 0) }
