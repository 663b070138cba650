package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/common/model"
)

// moment is a time, or one that moves with the clock: by a duration before or after now. It is written as in Thanos.
type moment struct {
	text     string
	at       time.Time
	relative bool
	offset   time.Duration
}

// Set parses s: a time as of RFC 3339, or a duration such as -2w or 1h.
func (m *moment) Set(s string) error {
	if at, err := time.Parse(time.RFC3339, s); err == nil {
		*m = moment{text: s, at: at}
		return nil
	}
	digits, before := strings.CutPrefix(s, "-")
	d, err := model.ParseDuration(digits)
	if err != nil {
		return fmt.Errorf("%q: want a time such as 2026-01-31T00:00:00Z, or a duration before now such as -2w", s)
	}
	*m = moment{text: s, relative: true, offset: time.Duration(d)}
	if before {
		m.offset = -m.offset
	}
	return nil
}

// String is what Set was given.
func (m *moment) String() string { return m.text }

// millis is the moment in Unix milliseconds, when the clock says now.
func (m *moment) millis(now time.Time) int64 {
	if m.relative {
		return now.Add(m.offset).UnixMilli()
	}
	return m.at.UnixMilli()
}
