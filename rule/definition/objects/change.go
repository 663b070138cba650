package objects

import (
	"bytes"
	"context"
	"slices"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/rule/definition"
)

// The functions of this file ask the bucket, not what the last listing found: who has changed a group sees the change.

// List returns the groups of a tenant, or of one of its namespaces, sorted. An error of one object is an error of all.
func (s *Store) List(ctx context.Context, of tenant.ID, namespace string) ([]definition.Group, error) {
	return s.groups(ctx, id{tenant: of, namespace: namespace})
}

// Get returns a group. It is an error of kind NotFound if there is none.
func (s *Store) Get(ctx context.Context, of tenant.ID, namespace, name string) (definition.Group, error) {
	groups, err := s.groups(ctx, id{of, namespace, name})
	if err != nil {
		return definition.Group{}, err
	}
	if len(groups) == 0 {
		return definition.Group{}, errs.E(errs.NotFound, "group does not exist")
	}
	return groups[0], nil
}

// groups reads a group, or those of a namespace or tenant.
func (s *Store) groups(ctx context.Context, what id) ([]definition.Group, error) {
	objects, err := s.of(ctx, what)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	known := s.known
	s.mu.Unlock()
	found, err := s.read(ctx, newest(objects), known)
	if err != nil {
		return nil, errs.E(errs.Internal, "%w", err)
	}
	var groups []definition.Group
	for _, k := range found {
		groups = append(groups, *k.group)
	}
	definition.Sort(groups)
	return groups, nil
}

// Count returns how many groups a tenant has besides the one of this namespace and name.
func (s *Store) Count(ctx context.Context, of tenant.ID, namespace, name string) (int, error) {
	objects, err := s.of(ctx, id{tenant: of})
	if err != nil {
		return 0, err
	}
	groups := newest(objects)
	delete(groups, id{of, namespace, name})
	return len(groups), nil
}

// Put stores a group, which replaces one of the same tenant, namespace and name. Errors: Invalid for names, Unavailable
// for the bucket.
//  1. the new version, which counts from now on
//  2. older versions are deleted
func (s *Store) Put(ctx context.Context, g *definition.Group) error {
	of := id{g.Tenant, g.Namespace, g.Name}
	if err := checkNames(g.Namespace, g.Name); err != nil {
		return err
	}
	text, err := encode(g)
	if err != nil {
		return err
	}
	before, err := s.of(ctx, of)
	if err != nil {
		return err
	}
	version, err := next(before, s.opts.Now())
	if err != nil {
		return err
	}
	if err := s.bkt.Upload(ctx, newObject(of, version).key, bytes.NewReader(text)); err != nil {
		return errs.E(errs.Unavailable, "store group %q in %q: %w", g.Name, g.Namespace, err)
	}
	defer s.changedHere()
	before = slices.DeleteFunc(before, func(o object) bool { return o.mimir() })
	if err := s.delete(ctx, before); err != nil { // the new version counts in any case
		s.log.Warn("an old version of a group of rules stays in the bucket", "tenant", g.Tenant, "err", err)
	}
	return nil
}

// Delete deletes a group, or all groups of a namespace if name is empty, also those that Mimir or Cortex wrote. It is
// an error of kind NotFound if there is none.
func (s *Store) Delete(ctx context.Context, of tenant.ID, namespace, name string) error {
	objects, err := s.of(ctx, id{of, namespace, name})
	if err != nil {
		return err
	}
	if len(objects) == 0 && name == "" {
		return errs.E(errs.NotFound, "group namespace does not exist")
	} else if len(objects) == 0 {
		return errs.E(errs.NotFound, "group does not exist")
	}
	defer s.changedHere()
	return s.delete(ctx, objects)
}

// delete deletes objects, those first that do not count, so that none of them counts again when the rest fails.
func (s *Store) delete(ctx context.Context, objects []object) error {
	inOrder(objects)
	for _, o := range objects {
		if err := s.bkt.Delete(ctx, o.key); err != nil && !s.bkt.IsObjNotFoundErr(err) {
			return errs.E(errs.Unavailable, "delete %s: %w", o.key, err)
		}
	}
	return nil
}

// of returns the objects of a group, or of a namespace or tenant.
func (s *Store) of(ctx context.Context, what id) ([]object, error) {
	all, err := s.list(ctx, what.ownPrefix(), what.mimirPrefix())
	if err != nil {
		return nil, errs.E(errs.Unavailable, "list the rules of tenant %s: %w", what.tenant, err)
	}
	return slices.DeleteFunc(all, func(o object) bool {
		return o.tenant != what.tenant || what.namespace != "" && o.namespace != what.namespace ||
			what.name != "" && o.name != what.name
	}), nil
}

// changedHere makes the next listing come at once.
func (s *Store) changedHere() {
	select {
	case s.poke <- struct{}{}:
	default: // it will come anyway
	}
}
