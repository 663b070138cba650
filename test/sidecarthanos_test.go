package test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/hearth-metrics/hearth/internal/pb/thanospb"
)

// TestSidecarLikeThanos compares Hearth's sidecar with Thanos's on one Prometheus: answers, Info, and what both ship.
func TestSidecarLikeThanos(t *testing.T) {
	thanos := thanosBinary(t)
	s := startScraped(t, "cluster: eu, replica: r0", "--storage.tsdb.min-block-duration=2h",
		"--storage.tsdb.max-block-duration=2h")
	s.fill(9)
	buckets := []string{t.TempDir(), t.TempDir()}
	_, _, h := s.sidecarOf("hearth", hearthBinary, "--objstore.config-file="+bucketFile(t, buckets[0]),
		"--shipper.meta-file-name=hearth.json")
	_, _, th := s.sidecarOf("thanos", thanos, "--objstore.config-file="+bucketFile(t, buckets[1]))
	both := pair{t, h, th}

	hi, err1 := h.Info(t.Context())
	ti, err2 := th.Info(t.Context())
	if err1 != nil || err2 != nil || hi.ComponentType != ti.ComponentType || !proto.Equal(hi.Store, ti.Store) ||
		len(hi.LabelSets) != 1 || !proto.Equal(hi.LabelSets[0], ti.LabelSets[0]) {
		t.Errorf("info\n%v %v\n%v %v", hi, err1, ti, err2)
	}

	now := time.Now()
	rnd := rand.New(rand.NewPCG(uint64(now.UnixNano()), 1))
	matchers := []*thanospb.LabelMatcher{
		{Type: thanospb.LabelMatcher_EQ, Name: "__name__", Value: "metric_1"},
		{Type: thanospb.LabelMatcher_RE, Name: "__name__", Value: "metric_.*"},
		{Type: thanospb.LabelMatcher_NRE, Name: "instance", Value: "1.*"},
		{Type: thanospb.LabelMatcher_NEQ, Name: "a", Value: "1"},
		{Type: thanospb.LabelMatcher_EQ, Name: "cluster", Value: "eu"},
		{Type: thanospb.LabelMatcher_EQ, Name: "cluster", Value: "own"},
		{Type: thanospb.LabelMatcher_EQ, Name: "b", Value: ""},
		{Type: thanospb.LabelMatcher_EQ, Name: "zone.utf8 ü", Value: "x\"y"},
		{Type: thanospb.LabelMatcher_RE, Name: "replica", Value: "r.*"},
	}
	without := [][]string{nil, {"replica"}, {"cluster", "replica"}, {"instance"}}
	found := 0
	for i := range 150 {
		req := &thanospb.SeriesRequest{MinTime: now.Add(-time.Duration(rnd.IntN(600)) * time.Minute).UnixMilli(),
			MaxTime: now.UnixMilli(), SkipChunks: i%5 == 4, WithoutReplicaLabels: without[rnd.IntN(len(without))]}
		for _, at := range rnd.Perm(len(matchers))[:1+rnd.IntN(3)] {
			req.Matchers = append(req.Matchers, matchers[at])
		}
		if i%7 == 6 && !req.SkipChunks {
			req.ShardInfo = &thanospb.ShardInfo{ShardIndex: int64(rnd.IntN(3)), TotalShards: 3, By: i%2 == 0,
				Labels: []string{"instance"}}
		}
		if req.SkipChunks { // Thanos then drops external labels only, and keeps the series' own of that name
			req.WithoutReplicaLabels = nil
			req.Matchers = append(req.Matchers, matchers[1]) // one that excludes something, without which it fails
		}
		found += both.series(req)
		labelsLikeThanos(both, req, []string{"__name__", "a", "cluster", "replica", "zone.utf8 ü", "none"}[rnd.IntN(6)])
	}
	if found < 500 {
		t.Errorf("%d series in all answers", found)
	}

	eventually(t, 4*time.Minute, func() error {
		a, b := shippedBlocks(t, buckets[0]), shippedBlocks(t, buckets[1])
		if len(b) < 3 || !slices.Equal(a, b) {
			return fmt.Errorf("hearth shipped %v, thanos %v", a, b)
		}
		return nil
	})
	compareShipped(t, buckets[0], buckets[1])
}

// labelsLikeThanos compares label names and the values of one label for the matchers of req. Thanos names a label twice
// that is external and also a series' own, and passes on Prometheus's refusal of selectors that exclude nothing.
func labelsLikeThanos(both pair, req *thanospb.SeriesRequest, label string) {
	both.t.Helper()
	same := func(what string, hearth, thanos []string, herr, therr error) {
		both.t.Helper()
		slices.Sort(thanos)
		thanos = slices.Compact(thanos)
		refused := grpcstatus.Code(therr) == codes.InvalidArgument && herr == nil
		if !refused && !both.sameFault(what, herr, therr) && !slices.Equal(hearth, thanos) {
			both.t.Errorf("%s:\n%q\n%q", what, hearth, thanos)
		}
	}
	names := &thanospb.LabelNamesRequest{Start: req.MinTime, End: req.MaxTime, Matchers: req.Matchers}
	hn, herr := both.hearth.LabelNames(both.t.Context(), names)
	tn, therr := both.thanos.LabelNames(both.t.Context(), names)
	same(names.String(), hn.GetNames(), tn.GetNames(), herr, therr)
	values := &thanospb.LabelValuesRequest{Label: label, Start: req.MinTime, End: req.MaxTime, Matchers: req.Matchers}
	hv, herr := both.hearth.LabelValues(both.t.Context(), values)
	tv, therr := both.thanos.LabelValues(both.t.Context(), values)
	same(values.String(), hv.GetValues(), tv.GetValues(), herr, therr)
}

// compareShipped compares what Hearth and Thanos shipped: objects, and metas without the time. Hearth ships an
// index-header with each block and a copy of its meta.json for people, and says more of the index.
func compareShipped(t *testing.T, hearth, thanos string) {
	t.Helper()
	a, b := objectsIn(t, hearth), objectsIn(t, thanos)
	for name, want := range b {
		got, ok := a[name]
		delete(a, name)
		switch {
		case !ok:
			t.Errorf("%s is missing", name)
		case strings.HasSuffix(name, ".json"):
			if g, w := comparableMeta(t, got), comparableMeta(t, want); !reflect.DeepEqual(g, w) {
				t.Errorf("%s:\n%v\n%v", name, g, w)
			}
		case got != want:
			t.Errorf("%s differs", name)
		}
	}
	for name := range a {
		if !strings.HasSuffix(name, "/index-header") && !strings.HasPrefix(name, "/debug/metas/") {
			t.Errorf("%s is there, and Thanos has none", name)
		}
	}
}

func objectsIn(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		all[strings.TrimPrefix(path, dir)] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func comparableMeta(t *testing.T, text string) map[string]any {
	t.Helper()
	var meta map[string]any
	if err := json.Unmarshal([]byte(text), &meta); err != nil {
		t.Fatal(err)
	}
	th := meta["thanos"].(map[string]any)
	delete(th, "upload_time")
	delete(th, "index_stats") // Thanos's sidecar does not read the index
	delete(th, "version")
	files, _ := th["files"].([]any)
	th["files"] = slices.DeleteFunc(files, func(f any) bool { return f.(map[string]any)["rel_path"] == "index-header" })
	return meta
}
