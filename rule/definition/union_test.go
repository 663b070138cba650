package definition_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/hearth-metrics/hearth/rule/definition"
	"github.com/hearth-metrics/hearth/rule/definition/sourcetest"
)

// memory is a source of texts.
type memory struct {
	namespace string
	changed   chan struct{}
	good      []definition.Group
	bad       []string
}

func newMemory(namespace string) *memory {
	return &memory{namespace: namespace, changed: make(chan struct{}, 1)}
}

func (m *memory) Changed() <-chan struct{} { return m.changed }

func (m *memory) Groups(context.Context) ([]definition.Group, error) {
	if len(m.bad) > 0 {
		return slices.Clone(m.good), errors.New(strings.Join(m.bad, ", "))
	}
	return slices.Clone(m.good), nil
}

func (m *memory) remove(name string) {
	m.good = slices.DeleteFunc(m.good, func(g definition.Group) bool { return g.Name == name })
}

func (m *memory) tell(name string, bad bool) {
	m.bad = slices.DeleteFunc(m.bad, func(s string) bool { return s == name })
	if bad {
		m.bad = append(m.bad, name)
	}
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

func (m *memory) put(t *testing.T, name, text string) {
	g, err := definition.ParseGroup([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	g.Tenant, g.Namespace = "acme", m.namespace
	m.remove(name)
	m.good = append(m.good, g)
	m.tell(name, false)
}

// TestUnion: several sources are one.
func TestUnion(t *testing.T) {
	first, second := newMemory("first"), newMemory("second")
	u := definition.NewUnion(first, second)
	if err := u.Open(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	sourcetest.Run(t, sourcetest.Place{
		Source: u, Look: func() {},
		Put:    func(name, text string) { second.put(t, name, text) },
		Spoil:  func(name string) { second.tell(name, true) },
		Delete: func(name string) { second.remove(name); second.tell(name, false) },
	})
	first.namespace = "second" // of which two have a group a
	first.put(t, "a", sourcetest.Group("a", "of_first"))
	groups, err := u.Groups(t.Context())
	if len(groups) != 2 || groups[0].Rules[0].Expr != "of_first" || err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("%+v, %v", groups, err)
	}
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
}
