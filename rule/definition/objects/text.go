package objects

import (
	"bytes"
	"errors"
	"fmt"

	"go.yaml.in/yaml/v3"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/rule/definition"
)

// form is an object of Hearth. Complete is its last key: without it the object is not whole.
type form struct {
	Version   int       `yaml:"version"`
	Namespace string    `yaml:"namespace"`
	Group     yaml.Node `yaml:"group"`
	Complete  bool      `yaml:"complete"`
}

const formVersion = 1

// maxObject bounds an object in bytes: a group that is written out, and what is around it.
const maxObject = 4 * definition.MaxGroupBytes

// encode writes a group as an object.
func encode(g *definition.Group) ([]byte, error) {
	f := form{Version: formVersion, Namespace: g.Namespace, Complete: true}
	if err := f.Group.Encode(g); err != nil {
		return nil, errs.Wrap(errs.Internal, err)
	}
	text, err := yaml.Marshal(f)
	if err == nil {
		var back definition.Group
		back, err = decode(id{g.Tenant, g.Namespace, g.Name}, text)
		if err == nil && len(back.Rules) != len(g.Rules) {
			err = fmt.Errorf("%d rules were written and %d read", len(g.Rules), len(back.Rules))
		}
	}
	if err != nil {
		return nil, errs.E(errs.Invalid, "the group cannot be stored: %w", err)
	}
	return text, nil
}

// decode reads an object of Hearth, which must be the group of.
func decode(of id, text []byte) (definition.Group, error) {
	if len(text) > maxObject {
		return definition.Group{}, fmt.Errorf("the object is larger than %d bytes", maxObject)
	}
	var f form
	strict := yaml.NewDecoder(bytes.NewReader(text))
	strict.KnownFields(true)
	if err := strict.Decode(&f); err != nil {
		return definition.Group{}, err
	}
	switch {
	case f.Version > formVersion:
		return definition.Group{}, fmt.Errorf("the object has format %d; this program knows %d", f.Version, formVersion)
	case !f.Complete:
		return definition.Group{}, errors.New("the object is not whole: its key complete is missing")
	}
	group, err := yaml.Marshal(&f.Group)
	if err != nil {
		return definition.Group{}, err
	}
	g, err := definition.ParseGroup(group)
	if err != nil {
		return definition.Group{}, err
	}
	g.Tenant, g.Namespace = of.tenant, f.Namespace
	return g, sameNames(of, &g)
}

// sameNames is an error if an object holds another group than its name says.
func sameNames(of id, g *definition.Group) error {
	if g.Namespace != of.namespace || g.Name != of.name {
		return fmt.Errorf("the object holds group %q in %q, and its name is that of group %q in %q", g.Name, g.Namespace,
			of.name, of.namespace)
	}
	return nil
}
