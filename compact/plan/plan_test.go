package plan

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/hearth-metrics/hearth/block"
)

const hour = int64(time.Hour / time.Millisecond)

// testSettings are those of a bucket of a cluster.
func testSettings() *Settings {
	s := DefaultSettings()
	s.Bucket = "5f0c9f0e-1f1e-4b5e-9d3f-0a1b2c3d4e5f"
	s.Owner = block.Owner{Cluster: "c", TenantLabel: "tenant_id", ReplicaLabel: "receive_replica"}
	return &s
}

// pictured is a bucket as a text has it: words like name:0-2,r=r1, in hours.
type pictured struct {
	*testing.T
	Bucket
	names map[ulid.ULID]string
}

func picture(t *testing.T, text string) *pictured {
	p := &pictured{T: t, names: map[ulid.ULID]string{}}
	p.View.Metas, p.SetAside, p.Done = map[ulid.ULID]*block.Meta{}, map[ulid.ULID]bool{}, map[ulid.ULID]bool{}
	p.View.Deletions = map[ulid.ULID]block.DeletionMark{}
	p.View.NoCompact, p.View.NoDownsample = map[ulid.ULID]block.NoCompactMark{}, map[ulid.ULID]block.NoDownsampleMark{}
	for word := range strings.FieldsSeq(text) {
		name, rest, _ := strings.Cut(word, ":")
		fields := strings.Split(rest, ",")
		p.add(name, fields[0], fields[1:])
	}
	p.Metas = p.View.Select()
	return p
}

// id is that of the block with a name.
func (p *pictured) id(name string) (id ulid.ULID) {
	copy(id[6:], name)
	for known, n := range p.names {
		if n == name {
			return known
		}
	}
	return id
}

func (p *pictured) ids(names string) (out []ulid.ULID) {
	for name := range strings.SplitSeq(names, "+") {
		out = append(out, p.id(name))
	}
	slices.SortFunc(out, ulid.ULID.Compare)
	return out
}

func (p *pictured) number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		p.Fatalf("%q is no number", s)
	}
	return n
}

func (p *pictured) add(name, times string, fields []string) {
	at := strings.LastIndex(times, "-")
	if strings.HasSuffix(times[:at], "-") {
		at-- // the end is negative, too
	}
	m := &block.Meta{}
	m.MinTime, m.MaxTime, m.Version = p.number(times[:at])*hour, p.number(times[at+1:])*hour, 1
	m.ULID = p.id(name)
	_ = m.ULID.SetTime(uint64(max(m.MaxTime, 0)))
	m.Compaction.Level, m.Compaction.Sources = 1, []ulid.ULID{m.ULID}
	m.Thanos.Labels = map[string]string{"tenant_id": "a"}
	p.names[m.ULID] = name
	size := int64(1000)
	var origin *block.Origin
	for _, field := range fields {
		key, value, _ := strings.Cut(field, "=")
		switch key {
		case "t":
			m.Thanos.Labels["tenant_id"] = value
		case "r":
			m.Thanos.Labels["receive_replica"] = value
		case "ha", "x":
			m.Thanos.Labels[key] = value
		case "res":
			m.Thanos.Downsample.Resolution = p.number(value) * 60_000
		case "src":
			m.Compaction.Sources, m.Compaction.Level = p.ids(value), 2
		case "level":
			m.Compaction.Level = int(p.number(value))
		case "size":
			size = p.number(value)
		case "up":
			m.Thanos.UploadTime = time.UnixMilli(p.number(value) * hour)
		case "failed":
			m.Compaction.Failed = true
		case "nocompact":
			p.View.NoCompact[m.ULID] = block.NoCompactMark{}
		case "nodown":
			p.View.NoDownsample[m.ULID] = block.NoDownsampleMark{}
		case "del":
			p.View.Deletions[m.ULID] = block.DeletionMark{}
		case "aside":
			p.SetAside[m.ULID] = true
		case "series":
			m.Stats.NumSeries = uint64(p.number(value))
		case "part", "made":
			origin = &block.Origin{ID: m.ULID, Of: 1, Sources: m.Compaction.Sources, Removed: []string{"receive_replica"}}
			if key == "made" {
				origin.Producers = strings.Split(value, "+")
				break
			}
			fmt.Sscanf(value, "%d/%d", &origin.Shard, &origin.Of)
			m.Compaction.Sources = []ulid.ULID{m.ULID}
		case "rep":
			origin.Replaces = p.ids(value)
		default:
			p.Fatalf("what is %q?", field)
		}
	}
	m.Origin = origin
	m.Thanos.Files = []block.File{{RelPath: "chunks/000001", SizeBytes: size}, {RelPath: block.IndexName, SizeBytes: size / 10}}
	p.View.Metas[m.ULID] = m
}

// text is a plan in one line: "kind inputs > outputs" of each job.
func (p *pictured) text(jobs []Job) string {
	var out []string
	for _, j := range jobs {
		words := []string{string(j.Kind)}
		for _, m := range j.Inputs {
			words = append(words, p.names[m.ULID])
		}
		words = append(words, ">")
		for _, o := range j.Outputs {
			word := map[int64]string{Raw: "raw", FiveMin: "5m", OneHour: "1h"}[o.Resolution]
			if o.Part.Of > 1 {
				word += fmt.Sprintf(":%d/%d", o.Part.Shard, o.Part.Of)
			}
			words = append(words, word)
		}
		if len(j.Dedup) > 0 {
			words = append(words, "dedup", strings.Join(j.Dedup, ","))
		}
		out = append(out, strings.Join(words, " "))
	}
	return strings.Join(out, "; ")
}

func at(hours int64) time.Time { return time.UnixMilli(hours * hour) }

// TestHorizontal: ranges that are over become one block, as Thanos's planner does it.
func TestHorizontal(t *testing.T) {
	f := func(blocks, want string) {
		t.Helper()
		p := picture(t, blocks)
		s := testSettings()
		s.Downsample = false
		if got := p.text(Make(p.Bucket, s, at(10_000)).Jobs); got != want {
			t.Errorf("%s:\n%s, want\n%s", blocks, got, want)
		}
	}
	f("", "")
	f("a:0-2", "")
	f("a:0-2 b:2-4 c:4-6 d:6-8", "") // d is the newest, and the range may get more
	f("a:0-2 b:2-4 c:4-6 d:6-8 e:8-10", "compact a b c d > raw")
	f("a:0-2 b:2-4 c:8-10 d:10-12", "compact a b > raw") // the range of c is over as well, and c is alone
	f("a:0-2 b:4-6 c:8-10 d:10-12", "compact a b > raw") // with a gap
	f("a:0-2 b:2-4 c:4-6 d:16-18", "")                   // the last but one may still get more, as with Thanos
	f("a:-8--6 b:-6--4 c:-4--2 d:-2-0 e:0-2", "compact a b c d > raw")
	f("a:-1-1 b:1-2 c:2-4 d:4-8 e:8-10 f:10-12", "compact b c d > raw") // a reaches over a border
	f("a:0-2 b:2-4,failed c:4-8 d:8-10 e:16-18", "")
	f("a:0-1 b:1-2 c:2-3 d:3-4 e:10-11 f:20-22", "compact a b > raw; compact c d > raw")
	f("a:0-2,nocompact b:2-4 c:4-6 d:6-8,nocompact e:8-10 f:16-18", "compact b c > raw")
	f("a:0-2 b:2-4,nocompact c:4-6 d:6-8,nocompact e:8-10 f:16-18", "")
	f("a:0-8 b:8-16 c:16-24 d:24-32 e:32-40 f:40-48 g:48-50", "compact a b c d e f > raw")
	f("a:0-8 b:8-10 c:10-12 d:16-24 e:40-48 g:48-50 h:50-52", "compact b c > raw") // the larger range waits for it
	f("a:0-48 b:48-96 c:96-336 d:336-340 e:340-342", "compact a b c > raw")
	f("a:0-336 b:336-672 c:672-674", "") // there is no larger range
	// Of two tenants the plans are apart, and in turn.
	f("a:0-2 b:2-4 c:4-6 d:6-8 e:8-10 f:8-10,t=b a2:0-2,t=b b2:2-8,t=b x:8-9,x=1 y:9-10,x=1",
		"compact a b c d > raw; compact a2 b2 > raw")
	f("a:0-2,del b:2-4 c:4-6,aside d:6-8 e:8-10 f:16-18", "compact b d > raw")
}

// TestOverlap: replicas are united first, and late blocks when it pays.
func TestOverlap(t *testing.T) {
	f := func(now int64, blocks, want, waits string) {
		t.Helper()
		p := picture(t, blocks)
		s := testSettings()
		s.Downsample, s.DedupLabels, s.Penalty = false, []string{"ha"}, true
		plan := Make(p.Bucket, s, at(now))
		if got := p.text(plan.Jobs); got != want {
			t.Errorf("%s:\n%s, want\n%s", blocks, got, want)
		}
		var got []string
		for _, st := range plan.States {
			got = append(got, st.Waits)
		}
		if got := strings.Join(got, ""); !strings.Contains(got, waits) || (got == "") != (waits == "") {
			t.Errorf("%s: waits for %q, want %q", blocks, got, waits)
		}
	}
	three := "a:0-2,r=r1 b:0-2,r=r2 c:0-2,r=r3 "
	f(3, three, "unite a b c > raw", "")
	f(3, "a:0-2,r=r1", "", "") // who else ships is not known
	f(100, "a:0-2,r=r1 b:2-4,r=r1 c:4-6,r=r1 d:6-8,r=r1 e:8-10,r=r1", "compact a b c d > raw", "")
	// The second range waits for r3, whose blocks the first has, and not for ever. No larger one is made before.
	two := "u:0-2,src=1+2+3,made=r1+r2+r3 a:2-4,r=r1 b:2-4,r=r2 v:4-8,src=4+5,made=r1+r2+r3 x:8-10,src=6+7,made=r1 " +
		"y:16-18,src=8+9,made=r1 "
	f(9, two, "", `waits for blocks of ["r3"] until 1970-01-01T10:00:00Z`)
	f(10, two, "unite a b > raw", "")
	f(9, two+"c:2-4,r=r3", "unite a b c > raw", "")
	f(11, "u:0-2,src=1+2,made=r1+r2 c:0-2,r=r3,size=1000", "compact c u > raw", "") // a whole replica came late
	// A few samples came late: they stay beside until there are more, or none comes.
	big := "u:0-2,src=1+2,made=r1+r2,size=10000,up=3 "
	f(10, big+"c:0-2,r=r1,size=900,up=9", "", "")
	f(10, big+"c:0-2,r=r1,size=900,up=9 d:0-2,r=r2,size=200,up=10", "compact c d u > raw", "")
	f(33, big+"c:0-2,r=r1,size=900,up=9", "compact c u > raw", "")
	f(32, big+"c:0-2,r=r1,size=900,up=9", "", "")
	// The next range takes them along.
	f(32, big+"c:0-2,r=r1,size=900,up=31 d:2-8,src=5+6,made=r1 e:8-10 f:16-18", "compact c u d > raw", "")
	// A late block over the border of two ranges is compared with both.
	f(32, "a:0-8,src=1+2,size=10000 b:8-16,src=3+4,size=10000 c:7-9,size=1900,up=31", "", "")
	f(32, "a:0-8,src=1+2,size=10000 b:8-16,src=3+4,size=10000 c:7-9,size=2300,up=31", "compact a c b > raw", "")
	f(32, "a:0-340,size=10000 b:3-4,up=1", "", "reaches over the border of every range")
	f(3, "a:0-2,r=r1,nocompact b:0-2,r=r2", "", "")
	// An HA pair: the algorithm for these.
	f(3, "a:0-2,ha=x,r=r1 b:0-2,ha=y,r=r2", "unite a b > raw dedup ha", "")
	// Tenants are never united, whatever the labels of replicas are.
	f(3, "a:0-2,r=r1 b:0-2,r=r2,t=b", "", "")
	// What others replaced is no input.
	f(3, three+"u:0-2,src=a+b+c,made=r1+r2+r3", "", "")
}

// TestParts: an output that would be too large is split, and parts are compacted by part.
func TestParts(t *testing.T) {
	f := func(blocks, want string) {
		t.Helper()
		p := picture(t, blocks)
		s := testSettings()
		s.Downsample, s.MaxSeries, s.MaxIndexSize = false, 100, 10_000
		if got := p.text(Make(p.Bucket, s, at(10_000)).Jobs); got != want {
			t.Errorf("%s:\n%s, want\n%s", blocks, got, want)
		}
	}
	end := " y:16-18 z:18-20"
	f("a:0-2,series=80 b:2-8,series=80"+end, "compact a b > raw")
	f("a:0-2,series=80 b:2-8,series=81"+end, "compact a b > raw:0/2 raw:1/2")
	f("a:0-2,series=310 b:2-8"+end, "compact a b > raw:0/4 raw:1/4 raw:2/4 raw:3/4")
	f("a:0-2,size=80000 b:2-8,size=10000"+end, "compact a b > raw:0/2 raw:1/2")
	halves := "a:0-4,src=1+2,part=0/2,series=50 b:0-4,src=1+2,part=1/2,series=50 "
	f(halves+"c:4-8,src=3+4,part=0/2,series=80 d:4-8,src=3+4,part=1/2"+end, "compact a c > raw:0/2; compact b d > raw:1/2")
	f(halves+"c:4-8,src=3+4,part=0/2,series=180 d:4-8,src=3+4,part=1/2"+end,
		"compact a c > raw:0/4 raw:2/4; compact b d > raw:1/2")
	f(halves+"c:4-8,series=10"+end, "compact a b c > raw:0/2 raw:1/2")
	f("a:0-4,src=1+2,part=0/2 b:0-4,src=1+2,part=1/4 c:0-4,src=1+2,part=3/4 d:4-8,src=3+4,part=1/2"+end,
		"compact b c d > raw:1/4 raw:3/4")
	f(halves, "") // they do not overlap
	f(halves+"c:1-2,src=9,part=0/2", "compact a c > raw:0/2")
	// A part whose others are missing is no input, and its job is done again.
	in := "i:0-4 j:4-8 "
	f(in+"a:0-8,src=i+j,part=0/2,rep=i+j"+end, "compact i j > raw")
	f(in+"a:0-8,src=i+j,part=0/2,rep=i+j b:0-8,src=i+j,part=1/2,rep=i+j"+end, "")
}

// TestDownsampling: which jobs write coarser blocks, too, and which blocks are downsampled alone.
func TestDownsampling(t *testing.T) {
	f := func(blocks, want string) {
		t.Helper()
		p := picture(t, blocks)
		if got := p.text(Make(p.Bucket, testSettings(), at(10_000)).Jobs); got != want {
			t.Errorf("%s:\n%s, want\n%s", blocks, got, want)
		}
	}
	f("a:0-40", "downsample a > 5m")
	f("a:0-39", "")
	f("a:0-40,nodown", "")
	f("a:0-240", "downsample a > 1h 5m")
	f("a:0-24 b:24-48 c:48-50 d:50-52", "compact a b > 5m raw")
	f("a:0-48 b:48-336 c:336-337 d:337-338", "compact a b > 1h 5m raw")
	f("a:0-48 b:48-336,nodown c:336-337 d:337-338", "compact a b > raw")
	f("a:0-40 A:0-40,res=5,src=a", "")
	f("a:0-40,t=b A:0-40,res=5,src=a", "downsample a > 5m")
	f("a:0-240 A:0-240,res=5,src=a", "downsample A > 1h")
	f("a:0-240 A:0-240,res=5,src=a B:0-240,res=60,src=a", "")
	f("a:0-240,res=5", "downsample a > 1h")
	f("a:0-240,res=60", "")
	f("a:0-240,res=7", "") // nobody knows this resolution
	// Parts have parts of the coarser ones, and blocks that Thanos made of a part name the part.
	f("a:0-40,src=1+2,part=0/2 b:0-40,src=1+2,part=1/2 A:0-40,res=5,src=1+2,part=0/2", "downsample b > 5m:1/2")
	f("a:0-40,src=1+2,part=0/2 A:0-40,res=5,src=a", "")
	// Blocks of 5 minutes are compacted themselves. They are made anew where they lack samples.
	five := "A:0-48,res=5,src=1+2 B:48-96,res=5,src=3+4 C:336-384,res=5,src=5 D:384-432,res=5,src=6 "
	f(five, "compact A B > 5m")
	f(five+"a:0-48,src=1+2 b:48-96,src=3+4 c:336-384,src=5+5 d:384-432,src=6+6", "compact A B > 5m; compact a b > raw")
	raw := "a:0-48,src=1+2 b:48-96,src=3+4 c:336-384,src=5+5 d:384-432,src=6+6,nodown"
	f("A:0-48,res=5,src=1+2 C:336-384,res=5,src=5 "+raw, "compact a b > 5m raw")
	f("A:0-48,res=5,src=1+2 B:48-96,res=5,src=3 C:336-384,res=5,src=5 "+raw, "compact a b > 5m raw")
	f("a:0-48 b:48-336 c:336-337 d:337-338 A:0-48,res=5,src=a B:48-336,res=5,src=b",
		"compact a b > raw; compact A B > 1h 5m")
	f("a:0-48 b:48-96 c:96-98 d:98-100 A:0-48,res=5,src=a B:48-96,res=5,src=b", "")                 // more may come
	f("A:0-48,res=5,src=1+2 B:47-96,res=5,src=3+4 C:336-384,res=5,src=5 D:384-432,res=5,src=6", "") // they overlap
	f("A:0-48,res=5,src=1+2 B:48-336,res=5,src=3+4 C:336-384,res=5 D:384-432,res=5", "compact A B > 1h 5m")
}

// TestIDs: these ids are part of the format. If this test fails, idFormat has to change.
func TestIDs(t *testing.T) {
	f := func(want string, change func(*Settings, *Bucket)) {
		t.Helper()
		p := picture(t, "a:0-24,r=r1,series=150 b:24-48,r=r2 y:48-50,r=r1 z:50-52,r=r1")
		s := testSettings()
		s.MaxSeries = 100
		if change != nil {
			change(s, &p.Bucket)
		}
		var got []string
		for _, j := range Make(p.Bucket, s, at(1000)).Jobs {
			for _, o := range j.Outputs {
				got = append(got, o.ID.String())
			}
		}
		if got := strings.Join(got, " "); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	same := "000054SE0000AGD0DDZKS7P6CH 000054SE00S0FAZM28BM55G0B2 000054SE00YQ9FWPSA8NQMHF88 " +
		"000054SE00WQESHW5341PWGGV2"
	f(same, nil)
	f(same, func(s *Settings, b *Bucket) { slices.Reverse(s.DedupLabels); s.LateShare, s.ProducerWait = 0.5, 0 })
	f("000054SE00HH87M1RC7D5H6FNK 000054SE00VCXJTF89EC4C0H8R 000054SE00QATEEDZ2BPFRCDKY 000054SE007140J8VK4EBT1FA2",
		func(s *Settings, b *Bucket) { s.Bucket = "" })
	f("000054SE006K99GEP2FPAZXBMA 000054SE00G01AB35BEMT9THW9 000054SE00DFACBCG1Q9DPYNXA 000054SE000RXVE0V9ZCHHC4K8",
		func(s *Settings, b *Bucket) { s.Formats = "2" })
	f("000054SE00C38TSQD94KJS3QW0 000054SE00FVNXJK7TQD7JNFXW",
		func(s *Settings, b *Bucket) { s.MaxSeries = 1000 })
}

// TestSimulate: what is left to do, to the end.
func TestSimulate(t *testing.T) {
	f := func(blocks string, want Todo) {
		t.Helper()
		p, s := picture(t, blocks), testSettings()
		if got := Simulate(p.Bucket, s, at(10_000), Make(p.Bucket, s, at(10_000))); got != want {
			t.Errorf("%s: %+v, want %+v", blocks, got, want)
		}
	}
	f("", Todo{})
	f("a:0-2 b:2-4 x:400-402 y:402-404,del", Todo{})
	f("a:0-2 b:2-4 x:400-402 y:402-404", Todo{Compactions: 1, CompactionBlocks: 2})
	f("a:0-2,r=1 b:0-2,r=2 c:2-4,r=1 d:2-4,r=2 x:400-402 y:402-404", Todo{Compactions: 3, CompactionBlocks: 6})
	f("a:0-2 b:2-4 c:8-10 d:10-12 x:400-402 y:402-404", Todo{Compactions: 3, CompactionBlocks: 6})
	// 48 h with 5m, then 14 d of both, with 1h; x is downsampled alone.
	f("a:0-24 b:24-48 c:48-100 d:100-336,t=b x:336-384 y:400-402", Todo{3, 6, 3})
}

// TestOwned: compactors that share a bucket do each job once.
func TestOwned(t *testing.T) {
	p := picture(t, "a:0-2 b:2-8 c:8-10 d:10-16 e:16-18 f:18-24 x:400-402 y:402-404")
	jobs := Make(p.Bucket, testSettings(), at(1000)).Jobs
	odd := func(want byte) func([]byte) bool { return func(key []byte) bool { return key[15]%2 == want } }
	if n := len(Owned(jobs, odd(0))) + len(Owned(jobs, odd(1))); len(jobs) != 3 || n != 3 || len(Owned(jobs, nil)) != 3 {
		t.Errorf("%d of %d jobs", n, len(jobs))
	}
}

// TestStates: how far each range of a stream is.
func TestStates(t *testing.T) {
	f := func(blocks string, want ...Step) {
		t.Helper()
		p := picture(t, blocks)
		var got []Step
		for _, s := range Make(p.Bucket, testSettings(), at(10_000)).States {
			got = append(got, s.Step)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", blocks, got, want)
		}
	}
	f("")
	f("a:0-2,r=1 b:0-2,r=2", Shipped)
	f("a:0-2 b:2-4 x:400-402 y:402-404", United, Compacted)
	f("a:0-336 c:336-340", Compacted, Compacted)
	f("a:0-336 A:0-336,res=5,src=a", AtFiveMin)
	f("a:0-336 A:0-336,res=5,src=a B:0-336,res=60,src=a", AtOneHour)
	f("A:0-336,res=5,src=a", RawGone)
}

// TestProducers: who made the sources of a block is what its compactor wrote down, else what its removed labels say.
func TestProducers(t *testing.T) {
	removed := []string{"receive_replica", "ha"}
	f := func(labels map[string]string, origin *block.Origin, want ...string) {
		t.Helper()
		m := &block.Meta{Origin: origin}
		m.Thanos.Labels = labels
		if got := producers(m, removed); !slices.Equal(got, want) {
			t.Errorf("%v, %+v: %q, want %q", labels, origin, got, want)
		}
	}
	f(nil, nil)
	f(map[string]string{"tenant_id": "a"}, nil)
	f(map[string]string{"tenant_id": "a", "receive_replica": "r1"}, nil, "r1")
	f(map[string]string{"receive_replica": "r1", "ha": "x"}, nil, "r1,x")
	f(map[string]string{"ha": "x"}, nil, "x")
	f(map[string]string{"receive_replica": "r1"}, &block.Origin{Producers: []string{"r2", "r3"}}, "r2", "r3")
	f(map[string]string{"receive_replica": "r1"}, &block.Origin{}, "r1")
	// What a job makes says who all of them were.
	one, two := &block.Meta{}, &block.Meta{Origin: &block.Origin{Of: 1, Producers: []string{"r3", "r1"}}}
	one.Thanos.Labels = map[string]string{"receive_replica": "r2"}
	j := Job{Inputs: []*block.Meta{one, two, one}, Removed: removed}
	if got := j.origin(Output{Part: block.Part{Of: 1}}, nil).Producers; !slices.Equal(got, []string{"r1", "r2", "r3"}) {
		t.Errorf("%q", got)
	}
}
