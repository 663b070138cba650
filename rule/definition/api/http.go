package api

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"

	"go.yaml.in/yaml/v3"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/httpx"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/rule/definition"
)

// Store keeps the groups of tenants. Errors have a kind; it is NotFound for a group or namespace that does not exist.
type Store interface {
	// List returns the groups of a tenant, or of one of its namespaces, sorted.
	List(ctx context.Context, of tenant.ID, namespace string) ([]definition.Group, error)
	// Get returns one group.
	Get(ctx context.Context, of tenant.ID, namespace, name string) (definition.Group, error)
	// Count returns how many groups a tenant has besides the one of this namespace and name.
	Count(ctx context.Context, of tenant.ID, namespace, name string) (int, error)
	// Put stores a group, which replaces one of the same name.
	Put(ctx context.Context, g *definition.Group) error
	// Delete deletes a group, or all groups of a namespace if name is empty.
	Delete(ctx context.Context, of tenant.ID, namespace, name string) error
}

// Options of an API.
type Options struct {
	// Tenant finds the tenant of a request.
	Tenant tenant.Resolver
	// Limits are those of the tenants.
	Limits tenant.LimitsOf
	// Refusal is why a tenant stores no rules, such as one that is to be deleted; nil = all tenants do.
	Refusal func(tenant.ID) error
}

// API answers requests that read and change rules. It is safe for concurrent use.
type API struct {
	log     *slog.Logger
	store   Store
	opts    Options
	parsing chan struct{} // a place for each group that is parsed
}

// maxParsing is how many groups are parsed at a time.
const maxParsing = 4

// New returns an API over store.
func New(log *slog.Logger, store Store, opts Options) *API {
	return &API{log: log, store: store, opts: opts, parsing: make(chan struct{}, maxParsing)}
}

// The paths of the API: Mimir's, Cortex's, and Cortex's old one. GET of Cortex's path without a namespace is not among
// them, since Prometheus's API has the same path.
const (
	mimirPath  = "/prometheus/config/v1/rules"
	cortexPath = "/api/v1/rules"
	oldPath    = "/api/prom/rules"
)

// Routes are those of the API.
func (a *API) Routes() (routes []httpx.Route) {
	add := func(pattern string, handle func(*http.Request, tenant.ID) (answer, error)) {
		routes = append(routes, httpx.Route{Pattern: pattern, Class: httpx.Tenant, Handler: a.handler(handle)})
	}
	add("GET "+mimirPath, a.list)
	add("GET "+oldPath, a.list)
	for _, path := range []string{mimirPath, cortexPath, oldPath} {
		add("GET "+path+"/{namespace}", a.list)
		add("GET "+path+"/{namespace}/{group}", a.get)
		add("POST "+path+"/{namespace}", a.put)
		add("DELETE "+path+"/{namespace}", a.delete)
		add("DELETE "+path+"/{namespace}/{group}", a.delete)
	}
	return routes
}

// answer is a value that becomes YAML; nil = the request was accepted.
type answer any

func (a *API) handler(handle func(*http.Request, tenant.ID) (answer, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, err := a.opts.Tenant.Write(r)
		httpx.NoteTenant(r.Context(), string(id))
		var out answer
		if err == nil {
			out, err = handle(r, id)
		}
		var text []byte
		if err == nil && out != nil {
			text, err = yaml.Marshal(out)
		}
		if err != nil {
			// Clients show the text of an answer as it is.
			http.Error(w, err.Error(), errs.KindOf(err).HTTPStatus())
			return
		}
		if out == nil {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusAccepted)
			_, _ = io.WriteString(w, `{"status":"success","data":null,"errorType":"","error":""}`)
			return
		}
		w.Header().Set("Content-Type", "application/yaml")
		_, _ = w.Write(text) // an error means that the client is gone
	})
}

// errNoGroups is the answer of Cortex for an empty list.
var errNoGroups = errs.E(errs.NotFound, "no rule groups found")

// list answers with groups by namespace. An empty list is an empty mapping, as in Mimir; Cortex's clients expect 404.
func (a *API) list(r *http.Request, id tenant.ID) (answer, error) {
	groups, err := a.store.List(r.Context(), id, r.PathValue("namespace"))
	if err != nil {
		return nil, err
	}
	if len(groups) == 0 && r.URL.Path != mimirPath {
		return nil, errNoGroups
	}
	byNamespace := map[string][]definition.Group{}
	for _, g := range groups {
		byNamespace[g.Namespace] = append(byNamespace[g.Namespace], g)
	}
	return byNamespace, nil
}

func (a *API) get(r *http.Request, id tenant.ID) (answer, error) {
	return a.store.Get(r.Context(), id, r.PathValue("namespace"), r.PathValue("group"))
}

func (a *API) delete(r *http.Request, id tenant.ID) (answer, error) {
	namespace, name := r.PathValue("namespace"), r.PathValue("group")
	if err := a.store.Delete(r.Context(), id, namespace, name); err != nil {
		return nil, err
	}
	a.log.Info("rules deleted", "tenant", id, "namespace", namespace, "group", name, "by", user(r))
	return nil, nil
}

// put stores the group in the body of a request. Limits on the number of groups may be exceeded by requests that come
// at the same time.
func (a *API) put(r *http.Request, id tenant.ID) (answer, error) {
	if a.opts.Refusal != nil {
		if err := a.opts.Refusal(id); err != nil {
			return nil, err
		}
	}
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, definition.MaxGroupBytes))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, errs.E(errs.TooLarge, "the group has more than %d bytes", definition.MaxGroupBytes)
	} else if err != nil {
		return nil, errs.E(errs.Invalid, "the group cannot be read: %w", err)
	}
	g, err := a.parse(r.Context(), body)
	if err != nil {
		return nil, err
	}
	g.Tenant, g.Namespace = id, r.PathValue("namespace")
	limits := a.opts.Limits(id)
	if err := g.CheckLimits(limits); err != nil {
		return nil, err
	}
	for _, source := range g.SourceTenants {
		if err := tenant.GrantFrom(r.Context()).Check(source); err != nil {
			return nil, err
		}
	}
	if limits.RuleGroups > 0 {
		n, err := a.store.Count(r.Context(), id, g.Namespace, g.Name)
		if err == nil {
			err = definition.CheckCount(id, n+1, limits)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := a.store.Put(r.Context(), &g); err != nil {
		return nil, err
	}
	a.log.Info("rules stored", "tenant", id, "namespace", g.Namespace, "group", g.Name, "rules", len(g.Rules),
		"by", user(r))
	return nil, nil
}

func (a *API) parse(ctx context.Context, body []byte) (definition.Group, error) {
	select {
	case a.parsing <- struct{}{}:
		defer func() { <-a.parsing }()
		return definition.ParseGroup(body)
	case <-ctx.Done():
		return definition.Group{}, ctx.Err()
	}
}

// user is the name of the sender, "" where users are not told apart.
func user(r *http.Request) string {
	if g := tenant.GrantFrom(r.Context()); g != nil {
		return g.User
	}
	return ""
}
