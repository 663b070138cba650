package sidecar

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/series/sourcetest"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// TestContract runs the contract of sources over Prometheus's own handlers: with frames of all sizes, and with samples.
func TestContract(t *testing.T) {
	for name, fault := range map[string]func(http.ResponseWriter, *http.Request, http.Handler){
		"frames": nil, "samples": onlySamples,
	} {
		for _, frame := range []int{1 << 20, 1} {
			t.Run(fmt.Sprint(name, " of ", frame), func(t *testing.T) {
				sourcetest.Run(t, func(t *testing.T, id tenant.ID, in []sourcetest.Series) series.Source {
					f := newFakePrometheus(t, labels.EmptyLabels())
					f.set(func() { f.fault, f.frame = fault, frame })
					f.write(t, in...)
					s := f.sidecar(t, func(o *Options) { o.Tenant = id })
					s.found = &settings{lowest: -1 << 60} // the contract is about a source without external labels
					return s
				})
			})
		}
	}
}

// onlySamples makes Prometheus one that cannot stream.
func onlySamples(w http.ResponseWriter, r *http.Request, next http.Handler) {
	if strings.HasSuffix(r.URL.Path, "/read") {
		r.Body = withoutStreaming(r.Body)
	}
	next.ServeHTTP(w, r)
}

// withoutStreaming is a body of a remote read that asks for samples.
func withoutStreaming(body io.ReadCloser) io.ReadCloser {
	defer body.Close()
	packed, _ := io.ReadAll(body)
	raw, _ := snappy.Decode(nil, packed)
	var req prompb.ReadRequest
	_ = req.Unmarshal(raw)
	req.AcceptedResponseTypes = nil
	raw, _ = req.Marshal()
	return io.NopCloser(bytes.NewReader(snappy.Encode(nil, raw)))
}

// TestExternal compares the series that both kinds of callers see with what they are defined to be, for labels in all
// constellations: the order must be right, external labels win, and dropped ones are gone.
func TestExternal(t *testing.T) {
	external := labels.FromStrings("cluster", "eu", "replica", "0")
	now := time.Now().Add(-time.Minute).UnixMilli()
	all := someLabels()
	without := func(ls labels.Labels, names ...string) bool {
		return !slices.ContainsFunc(names, ls.Has)
	}
	for name, keep := range map[string]func(labels.Labels) bool{
		"own":     func(labels.Labels) bool { return true },
		"foreign": func(ls labels.Labels) bool { return without(ls, "cluster", "replica") },
	} {
		f := newFakePrometheus(t, external)
		var in []labels.Labels
		var data []sourcetest.Series
		for _, ls := range all {
			if keep(ls) {
				in = append(in, ls)
				data = append(data, sourcetest.Series{Labels: ls, Samples: []sourcetest.Sample{{T: now, V: 1}}})
			}
		}
		f.write(t, data...)
		s := f.open(t, func(o *Options) { o.MarkTenant, o.Tenant = true, owner })
		for _, thanos := range []bool{false, true} {
			for _, drop := range [][]string{nil, {"replica"}, {"cluster", "replica"}, {"a"}, {"z"}, {"a", "b", "d", "z"}} {
				for _, skip := range []bool{false, true} {
					v := view{s, thanos}
					want := expectedLabels(in, v.external(*s.found), drop)
					r := &series.Request{Tenant: owner, MinTime: now - 1, MaxTime: now + 1, WithoutLabels: drop, SkipChunks: skip,
						Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "m"),
							labels.MustNewMatcher(labels.MatchRegexp, "cluster", "e.")}}
					got := collect(t, v, r)
					if !slices.EqualFunc(got, want, labels.Equal) {
						t.Errorf("%s, thanos %v, without %v, skip %v: %d series, want %d:\n%v\n%v", name, thanos, drop, skip, len(got),
							len(want), got, want)
					}
				}
			}
		}
		if resorted := valueOf(s.m.resorted); name == "own" && resorted != 12 || name == "foreign" && resorted != 6 {
			t.Errorf("%s: %v requests were held and sorted", name, resorted)
		}
	}
}

func expectedLabels(in []labels.Labels, external labels.Labels, drop []string) (want []labels.Labels) {
	for _, ls := range in {
		b := labels.NewBuilder(ls)
		external.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
		b.Del(drop...)
		want = append(want, b.Labels())
	}
	slices.SortFunc(want, labels.Compare)
	return slices.CompactFunc(want, labels.Equal)
}

func collect(t *testing.T, src series.Source, r *series.Request) (got []labels.Labels) {
	t.Helper()
	set := src.Select(t.Context(), r)
	defer set.Close()
	for set.Next() {
		got = append(got, set.At().Labels)
	}
	if set.Err() != nil {
		t.Errorf("%+v: %v", r, set.Err())
	}
	return got
}

// TestConstantOrder puts random label sets in order that were in order without some labels that all get.
func TestConstantOrder(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 1))
	names := strings.Split("abcdefgh", "")
	for range 3000 {
		added := labels.NewBuilder(labels.EmptyLabels())
		var rest []string
		for _, n := range names {
			if rnd.IntN(3) == 0 {
				added.Set(n, "x")
			} else {
				rest = append(rest, n)
			}
		}
		var in []labels.Labels
		for range rnd.IntN(40) {
			b := labels.NewBuilder(labels.EmptyLabels())
			for _, n := range rest {
				if rnd.IntN(2) == 0 {
					b.Set(n, fmt.Sprint(rnd.IntN(2)))
				}
			}
			in = append(in, b.Labels())
		}
		slices.SortFunc(in, labels.Compare)
		in = slices.CompactFunc(in, labels.Equal)
		set := newFrameLabels(added.Labels(), nil)
		o := constantOrder{last: set.lastAdded()}
		var got []labels.Labels
		drain := func(ended bool) {
			for s, ok := o.take(ended); ok; s, ok = o.take(ended) {
				got = append(got, s.Labels)
			}
			if len(o.held) > len(names) {
				t.Fatalf("seed %d: %d series are held", seed, len(o.held))
			}
		}
		for _, ls := range in {
			var flat [][]byte
			ls.Range(func(l labels.Label) { flat = append(flat, []byte(l.Name), []byte(l.Value)) })
			own, all := set.of(flat)
			o.add(own, series.Series{Labels: all})
			drain(false)
		}
		drain(true)
		want := expectedLabels(in, added.Labels(), nil)
		if !slices.EqualFunc(got, want, labels.Equal) {
			t.Fatalf("seed %d: %v added to %v:\n%v, want\n%v", seed, added.Labels(), in, got, want)
		}
	}
}

// TestRefused has requests that get an error, and one that gets nothing.
func TestRefused(t *testing.T) {
	f := newFakePrometheus(t, labels.FromStrings("cluster", "eu"))
	now := time.Now().UnixMilli()
	f.write(t, sourcetest.Series{Labels: labels.FromStrings("__name__", "m"), Samples: []sourcetest.Sample{{T: now}}})
	s := f.open(t, func(o *Options) { o.Tenant = owner })
	cluster := labels.MustNewMatcher(labels.MatchEqual, "cluster", "eu")
	r := &series.Request{Tenant: owner, MinTime: 0, MaxTime: now, Matchers: []*labels.Matcher{cluster}}
	set := view{s, true}.Select(t.Context(), r)
	if errs.KindOf(set.Err()) != errs.Invalid {
		t.Errorf("a caller from Thanos that has external matchers only: %v", set.Err())
	}
	if got := collect(t, s, r); len(got) != 1 {
		t.Errorf("Hearth's caller that has external matchers only: %v", got)
	}
	r.Matchers = []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "cluster", "us")}
	before := f.seen("/read")
	if got := collect(t, view{s, true}, r); len(got) != 0 || f.seen("/read") != before {
		t.Errorf("matchers for another Prometheus: %v", got)
	}
}

// TestBrokenOff: a response that ends early, is not what it should be or is over a bound is an error, and never a short
// answer.
func TestBrokenOff(t *testing.T) {
	f := newFakePrometheus(t, labels.FromStrings("cluster", "eu"))
	now := time.Now().UnixMilli()
	for i := range 200 {
		f.write(t, sourcetest.Series{Labels: labels.FromStrings("__name__", "m", "i", fmt.Sprint(i)),
			Samples: []sourcetest.Sample{{T: now, V: 1}}})
	}
	s := f.open(t, func(o *Options) { o.Tenant = owner })
	r := &series.Request{Tenant: owner, MinTime: 0, MaxTime: now,
		Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "m")}}
	whole := len(collect(t, s, r))
	check := func(what string, want errs.Kind) {
		t.Helper()
		for _, skip := range []bool{false, true} {
			r := *r
			r.SkipChunks = skip
			set := s.Select(t.Context(), &r)
			n := 0
			for set.Next() {
				n++
			}
			err := set.Err()
			set.Close()
			if errs.KindOf(err) != want {
				t.Errorf("%s, skip %v: %d of %d series, %v", what, skip, n, whole, err)
			}
		}
	}
	check("whole", errs.OK)
	cutAt := 0
	f.set(func() {
		f.fault = func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if strings.HasSuffix(r.URL.Path, "/read") || strings.HasSuffix(r.URL.Path, "/series") {
				w = &cutWriter{ResponseWriter: w, left: cutAt}
			}
			next.ServeHTTP(w, r)
		}
	})
	for cutAt = 0; cutAt < 400; cutAt += 7 {
		check(fmt.Sprint("cut at ", cutAt), errs.Unavailable)
	}
	f.set(func() { f.fault, f.down = nil, true })
	check("down", errs.Unavailable)
	f.set(func() { f.down = false })
	s.opts.MaxBytes, s.opts.SortBudget = 1000, 1000
	set := s.Select(t.Context(), r)
	for set.Next() {
	}
	if errs.KindOf(set.Err()) != errs.Limited {
		t.Errorf("over the bound of bytes: %v", set.Err())
	}
	set.Close()
	r.SkipChunks = true
	if set := s.Select(t.Context(), r); errs.KindOf(set.Err()) != errs.Exhausted {
		t.Errorf("a list over the budget: %v", set.Err())
	}
}

// cutWriter breaks a response off after some bytes.
type cutWriter struct {
	http.ResponseWriter
	left int
}

func (c *cutWriter) Write(p []byte) (int, error) {
	if len(p) > c.left {
		_, _ = c.ResponseWriter.Write(p[:c.left])
		c.Flush()
		panic(http.ErrAbortHandler)
	}
	c.left -= len(p)
	return c.ResponseWriter.Write(p)
}

func (c *cutWriter) Flush() { c.ResponseWriter.(http.Flusher).Flush() }

// TestChangedLabels: external labels that change between two looks are no reason for a wrong order.
func TestChangedLabels(t *testing.T) {
	f := newFakePrometheus(t, labels.FromStrings("cluster", "eu"))
	now := time.Now().UnixMilli()
	in := []labels.Labels{labels.FromStrings("__name__", "m"), labels.FromStrings("__name__", "m", "a", "1")}
	for _, ls := range in {
		f.write(t, sourcetest.Series{Labels: ls, Samples: []sourcetest.Sample{{T: now, V: 1}}})
	}
	s := f.open(t, func(o *Options) { o.Tenant = owner })
	f.set(func() { f.external = labels.FromStrings("cluster", "us", "b", "1") })
	r := &series.Request{Tenant: owner, MinTime: 0, MaxTime: now,
		Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "m")}}
	set := s.Select(t.Context(), r)
	var last labels.Labels
	for set.Next() {
		if labels.Compare(last, set.At().Labels) >= 0 && !last.IsEmpty() {
			t.Errorf("%v after %v", set.At().Labels, last)
		}
		last = set.At().Labels
	}
	set.Close()
	if err := s.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := expectedLabels(in, f.external, nil)
	if got := collect(t, s, r); !slices.EqualFunc(got, want, labels.Equal) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestReencode: chunks of encodings that readers do not know have the same samples afterwards.
func TestReencode(t *testing.T) {
	c, err := chunkenc.NewEmptyChunk(chunkenc.EncXOR2)
	if err != nil {
		t.Fatal(err)
	}
	app, err := c.Appender()
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(100) {
		app.Append(i*5, i*10, float64(i))
	}
	out, err := reencode(series.Chunk{MaxTime: 990, Raw: series.Encoded{Encoding: c.Encoding(), Data: c.Bytes()}})
	if err != nil || len(out) != 1 || out[0].Raw.Encoding != chunkenc.EncXOR || out[0].MaxTime != 990 {
		t.Fatalf("%+v, %v", out, err)
	}
	it := series.NewIterator(out, series.PickAvg)
	n := int64(0)
	for it.Next() != chunkenc.ValNone {
		if ts, v := it.At(); ts != n*10 || v != float64(n) {
			t.Errorf("sample %d is %v at %d", n, v, ts)
		}
		n++
	}
	if n != 100 || it.Err() != nil {
		t.Errorf("%d samples, %v", n, it.Err())
	}
}

// TestReads: no more reads are made at a time than are allowed, and a set that is closed gives its one back.
func TestReads(t *testing.T) {
	f := newFakePrometheus(t, labels.FromStrings("cluster", "eu"))
	now := time.Now().UnixMilli()
	f.write(t, sourcetest.Series{Labels: labels.FromStrings("__name__", "m"), Samples: []sourcetest.Sample{{T: now}}})
	s := f.open(t, func(o *Options) { o.Tenant, o.MaxReads = owner, 1 })
	r := &series.Request{Tenant: owner, MinTime: 0, MaxTime: now,
		Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "m")}}
	first := s.Select(t.Context(), r)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if second := s.Select(ctx, r); errs.KindOf(second.Err()) != errs.Unavailable ||
		!errors.Is(second.Err(), context.DeadlineExceeded) {
		t.Errorf("a second read: %v", second.Err())
	}
	if err := errors.Join(first.Close(), first.Close()); err != nil {
		t.Error(err)
	}
	if got := collect(t, s, r); len(got) != 1 {
		t.Errorf("after the first was closed: %v", got)
	}
}
