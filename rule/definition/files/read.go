package files

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/hearth-metrics/hearth/internal/conf"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/rule/definition"
)

// file is what is known of a file.
type file struct {
	tenant tenant.ID
	raw    []byte // that was parsed last
	// groups are those of the last good form, and err what is wrong with the present one.
	groups []definition.Group
	err    error
}

// same reports whether nothing has changed. Groups change with the text, or when a limit allows them again.
func (f *file) same(as file) bool {
	return errs.Text(f.err) == errs.Text(as.err) && bytes.Equal(f.raw, as.raw) && len(f.groups) == len(as.groups) &&
		f.tenant == as.tenant
}

// read returns what is known of a file after reading it. was is what was known before. counts are the groups of each
// tenant in the files that were read already.
func read(at place, was file, limits tenant.LimitsOf, counts map[tenant.ID]int) file {
	is := file{tenant: at.tenant, raw: was.raw}
	if was.tenant == at.tenant {
		is.groups = was.groups
	}
	defer func() { counts[at.tenant] += len(is.groups) }()
	raw, err := conf.ReadFile(at.path)
	if err != nil {
		is.err = err
		return is
	}
	is.raw = raw
	parsed := definition.ParseFile(raw)
	if err := parsed.Err(); err != nil {
		is.err = fmt.Errorf("%s: %w", at.path, err)
		return is
	}
	groups := slices.Clone(parsed.Groups)
	l := limits(at.tenant)
	for i := range groups {
		groups[i].Tenant, groups[i].Namespace = at.tenant, at.path
		if err := groups[i].CheckLimits(l); err != nil {
			is.err = fmt.Errorf("%s: %w", at.path, err)
			return is
		}
	}
	if err := definition.CheckCount(at.tenant, counts[at.tenant]+len(groups), l); err != nil {
		is.err = fmt.Errorf("%s: %w", at.path, err)
		return is
	}
	is.groups = groups
	return is
}
