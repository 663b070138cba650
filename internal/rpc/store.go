package rpc

import (
	"context"
	"maps"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/rulestate"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Store is what RegisterStore serves.
type Store struct {
	// Sources are the local sources by role: receive, store, query, sidecar. A Hearth caller picks one by its role, or
	// gets all of them merged; a Thanos caller gets all.
	Sources map[string]series.Source
	// Rules are the rules of this process; nil = it has none. A process with rules may have no Sources.
	Rules rulestate.Source
	// External returns the external labels of a tenant's one stream in a source that is no series.Streamer; nil = the
	// tenant label only.
	External func(id tenant.ID) labels.Labels
	// Scraper answers for targets and statistics of a TSDB; nil = there are none here.
	Scraper Scraper
	// Tenants says whose series callers see that name no tenant in Hearth's way.
	Tenants Tenants
	// TenantLabel is the external label that names the tenant; "" = tenant_id.
	TenantLabel string
	// SortBudget bounds the memory in bytes for sorting one stream's series by the labels that a Thanos caller sees;
	// beyond it the call fails as ResourceExhausted. 0 = no bound.
	SortBudget int64
	// MaxSeries and MaxSamples (120 for each chunk, as Thanos counts) bound one Series call, which fails as
	// ResourceExhausted beyond; 0 = no bound.
	MaxSeries, MaxSamples int64
	// Readers bounds by role the calls that work at the same time, so that writes find a core; more wait, in the order of
	// coming, and take turns frame by frame. None = no bound, and none for calls of several roles, as one of them may wait
	// for a bucket; nor for exemplars and metadata, which are small.
	Readers map[string]int
}

// RegisterStore serves st by Thanos's StoreAPI and its siblings Info, Exemplars, Metadata and Rules. It is called
// before s is opened.
func RegisterStore(s *Server, st Store) {
	if st.TenantLabel == "" {
		st.TenantLabel = DefaultClientOptions().TenantLabel
	}
	h := &storeServer{Store: st, metrics: s.metrics, readSlots: map[string]*semaphore.Weighted{}}
	for role, n := range st.Readers {
		h.readSlots[role] = semaphore.NewWeighted(int64(n))
	}
	s.grpc.RegisterService(service(serviceStore, "thanospb/store.proto", []grpc.MethodDesc{
		unaryMethod(serviceStore, "LabelNames", (*storeServer).labelNames),
		unaryMethod(serviceStore, "LabelValues", (*storeServer).labelValues),
	}, streamMethod("Series", (*storeServer).series)), h)
	s.grpc.RegisterService(service(serviceInfo, "infopb/info.proto", []grpc.MethodDesc{
		unaryMethod(serviceInfo, "Info", (*storeServer).info),
	}), h)
	s.grpc.RegisterService(service(serviceExemplars, "thanospb/exemplars.proto", nil,
		streamMethod("Exemplars", (*storeServer).exemplars)), h)
	s.grpc.RegisterService(service(serviceMetadata, "thanospb/metadata.proto", nil,
		streamMethod("MetricMetadata", (*storeServer).metricMetadata)), h)
	s.grpc.RegisterService(service(serviceRules, "thanospb/rules.proto", nil,
		streamMethod("Rules", (*storeServer).rules)), h)
	s.grpc.RegisterService(service(serviceTargets, "thanospb/targets.proto", nil,
		streamMethod("Targets", (*storeServer).targets)), h)
	s.grpc.RegisterService(service(serviceStatus, "thanospb/status.proto", nil,
		streamMethod("TSDBStatistics", (*storeServer).tsdbStatistics)), h)
	s.grpc.RegisterService(service(serviceArrivals, "hearthpb/hearth.proto", []grpc.MethodDesc{
		unaryMethod(serviceArrivals, "Tenant", (*storeServer).arrivals),
	}), h)
}

type storeServer struct {
	Store
	metrics   *metrics
	readSlots map[string]*semaphore.Weighted // by role
}

func (st *Store) external(id tenant.ID) labels.Labels {
	if st.External != nil {
		return st.External(id)
	}
	return labels.FromStrings(st.TenantLabel, string(id))
}

// sources are those of a role, or all, ordered by role.
func (st *Store) sources(role string) ([]series.Source, error) {
	if role != "" {
		src, ok := st.Sources[role]
		if !ok {
			return nil, errs.E(errs.NotFound, "role %q is not served here; these are: %q", role, st.roles())
		}
		return []series.Source{src}, nil
	}
	var all []series.Source
	for _, role := range st.roles() {
		all = append(all, st.Sources[role])
	}
	return all, nil
}

func (st *Store) roles() []string { return slices.Sorted(maps.Keys(st.Sources)) }

// resolved is what a caller may see: either own (one tenant's series with their own labels, from sources), or the
// streams as Thanos has them.
type resolved struct {
	own      bool
	tenant   tenant.ID
	sources  []series.Source
	streams  []stream
	warnings series.Warnings
}

// resolve finds out what the caller may see. With partial, a source that does not respond is a warning.
func (st *Store) resolve(ctx context.Context, partial bool) (resolved, error) {
	c := callerOf(ctx)
	g, err := st.Tenants.grantTo(c)
	if err != nil {
		return resolved{}, err
	}
	sources, err := st.sources(c.role)
	if err != nil {
		return resolved{}, err
	}
	if g.own {
		sendIdentity(ctx, sources)
		return resolved{own: true, tenant: g.tenants[0], sources: sources}, nil
	}
	var a resolved
	for _, src := range sources {
		streams, err := st.streams(ctx, src, g)
		if err != nil && !partial {
			return resolved{}, err
		}
		if err != nil {
			a.warnings = append(a.warnings, err.Error())
		}
		a.streams = append(a.streams, streams...)
	}
	return a, nil
}
