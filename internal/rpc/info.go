package rpc

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/hearth-metrics/hearth/internal/pb/hearthpb"
	"github.com/hearth-metrics/hearth/internal/pb/infopb"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// info describes all sources, or the one whose role the caller names. A Hearth caller also gets the Info of each
// source.
func (h *storeServer) info(ctx context.Context, _ *infopb.InfoRequest) (*infopb.InfoResponse, error) {
	c := callerOf(ctx)
	sources, err := h.sources(c.role)
	if err != nil {
		return nil, err
	}
	roles := h.roles()
	if c.role != "" {
		roles = []string{c.role}
	}
	// An empty range, min above max, says that the process holds nothing.
	out := &infopb.InfoResponse{ComponentType: component(roles), Store: &infopb.StoreInfo{
		MinTime: math.MaxInt64, MaxTime: math.MinInt64, SupportsSharding: true, SupportsWithoutReplicaLabels: true,
	}}
	if h.Rules != nil {
		out.Rules = &infopb.RulesInfo{}
	}
	if len(h.Sources) == 0 { // Thanos asks every process for series that says that it has a store
		out.Store = nil
	}
	if c.hearth {
		out.Hearth = &hearthpb.Info{}
	}
	if h.Scraper != nil {
		out.Targets, out.Status = &infopb.TargetsInfo{}, &infopb.StatusInfo{}
	}
	seen := map[string]bool{}
	for i, src := range sources {
		info, err := src.Info(ctx)
		if err != nil {
			return nil, err
		}
		out.Store.MinTime, out.Store.MaxTime = min(out.Store.MinTime, info.MinTime), max(out.Store.MaxTime, info.MaxTime)
		_, exemplars := src.(series.ExemplarSource)
		if exemplars {
			out.Exemplars = &infopb.ExemplarsInfo{}
		}
		_, meta := src.(series.MetadataSource)
		if meta {
			out.MetricMetadata = &infopb.MetricMetadataInfo{}
		}
		if c.hearth {
			s := sourceToPB(roles[i], info)
			s.Exemplars, s.Metadata = exemplars, meta
			out.Hearth.Sources = append(out.Hearth.Sources, s)
		}
		h.describeStreams(src, info, seen, out)
	}
	if out.Exemplars != nil {
		out.Exemplars.MinTime, out.Exemplars.MaxTime = out.Store.MinTime, out.Store.MaxTime
	}
	return out, nil
}

// describeStreams adds the external labels and times of src's streams, for the tenants that Info may name to anybody.
// Its cost must grow no faster than the number of streams. So it does not call Info for each stream: that costs as
// much as the Info of the whole source, and gives the same times. seen holds the label sets that are in out already.
func (h *storeServer) describeStreams(
	src series.Source, info series.Info, seen map[string]bool, out *infopb.InfoResponse,
) {
	var key []byte
	for _, s := range h.streamsFor(src, h.Tenants.announced().among(info.Tenants)) {
		set := labelsToPB(s.External)
		key = s.External.Bytes(key)
		if !seen[string(key)] { // the streams of a receiver and of its blocks have the same labels
			seen[string(key)] = true
			out.LabelSets = append(out.LabelSets, set)
		}
		out.Store.TsdbInfos = append(out.Store.TsdbInfos, &infopb.TSDBInfo{
			Labels: set, MinTime: info.MinTime, MaxTime: info.MaxTime,
		})
	}
}

// component returns the component type for Thanos, which knows one for each process. A process with several roles shows
// itself as a receiver or a store gateway if it is one.
func component(roles []string) string {
	for _, role := range []string{series.RoleReceive, series.RoleStore} {
		if slices.Contains(roles, role) {
			return role
		}
	}
	if len(roles) == 0 { // such a process has nothing but rules
		return series.RoleRule
	}
	return roles[0]
}

func sourceToPB(role string, i series.Info) *hearthpb.Source {
	s := &hearthpb.Source{
		Role: role, Instance: i.Instance, MinTime: i.MinTime, MaxTime: i.MaxTime,
		TenantsKnown: i.Tenants != nil, ReplicationFactor: int32(i.ReplicationFactor),
	}
	if i.Blocks != (series.Holding{}) {
		s.Holding = holdingToPB(i.Blocks)
	}
	if i.Blocks.Whole { // queriers that know no Holding take a gateway with a bucket for one that serves all of it
		s.Bucket = i.Blocks.Bucket
	}
	if !i.Since.IsZero() {
		s.SinceMs = i.Since.UnixMilli()
	}
	for _, id := range i.Tenants {
		s.Tenants = append(s.Tenants, string(id))
	}
	return s
}

// infoFromPB reads the Info of one role of a Hearth peer.
func infoFromPB(s *hearthpb.Source, external []labels.Labels) (series.Info, error) {
	i := series.Info{
		Instance: s.Instance, Role: s.Role, MinTime: s.MinTime, MaxTime: s.MaxTime,
		Blocks:            series.Holding{Bucket: s.Bucket, Whole: s.Bucket != ""},
		ReplicationFactor: int(s.ReplicationFactor), Labels: external,
	}
	if s.Holding != nil {
		var err error
		if i.Blocks, err = holdingFromPB(s.Holding); err != nil {
			return series.Info{}, err
		}
	}
	if s.SinceMs != 0 {
		i.Since = time.UnixMilli(s.SinceMs)
	}
	if s.TenantsKnown {
		i.Tenants = []tenant.ID{}
	}
	for _, name := range s.Tenants {
		id, err := tenant.Parse(name)
		if err != nil {
			return series.Info{}, err
		}
		i.Tenants = append(i.Tenants, id)
	}
	slices.Sort(i.Tenants)
	return i, nil
}

// foreignInfo reads the Info of a Thanos store. The label sets name its tenants. A set without a tenant label belongs
// to the default tenant. With an owner everything is the owner's.
func foreignInfo(in *infopb.InfoResponse, tenantLabel string, owner tenant.ID) series.Info {
	i := series.Info{Role: in.ComponentType, MinTime: math.MaxInt64, MaxTime: math.MinInt64}
	if in.Store != nil {
		i.MinTime, i.MaxTime = in.Store.MinTime, in.Store.MaxTime
	}
	i.Labels = labelSets(in)
	if owner != "" {
		i.Tenants = []tenant.ID{owner}
		return i
	}
	for _, set := range i.Labels {
		id := tenant.Default
		if name := set.Get(tenantLabel); name != "" {
			parsed, err := tenant.Parse(name)
			if err != nil {
				continue // no tenant of Hearth can have this name
			}
			id = parsed
		}
		i.Tenants = append(i.Tenants, id)
	}
	slices.Sort(i.Tenants)
	i.Tenants = slices.Compact(i.Tenants)
	return i
}

func labelSets(in *infopb.InfoResponse) []labels.Labels {
	var sets []labels.Labels
	for _, set := range in.LabelSets {
		sets = append(sets, labelsFromPB(set))
	}
	return sets
}
