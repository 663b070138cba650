package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/oklog/ulid/v2"
	amlabels "github.com/prometheus/alertmanager/pkg/labels"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/block"
	"github.com/hearth-metrics/hearth/block/replicate"
	"github.com/hearth-metrics/hearth/internal/expr"
	"github.com/hearth-metrics/hearth/internal/httpx"
)

// replicateEvery is how often the source is looked at without --single-run, as in Thanos.
const replicateEvery = time.Minute

func bucketReplicateCommand() command {
	return command{
		name: "tools bucket replicate",
		help: "Copy blocks with their marks from one bucket into another, oldest first, each minute or once, and say " +
			"whether both have the same. What an earlier run left unfinished is finished. Nothing is removed from the target.",
		first: []string{"objstore.config-file", "objstore-to.config-file", "single-run", "output"},
		subject: subject{"What to copy", []string{"objstore-to.*", "resolution", "compaction", "compaction-*", "matcher",
			"id", "min-time", "max-time", "single-run", "ignore-marked-for-deletion", "concurrency", "output"}},
		bind: bindBucketReplicate,
	}
}

// replicateFlags are those that no other tool has.
type replicateFlags struct {
	to          content
	resolutions []string
	levels      []int
	least, most int
	matcher     string
	ids         []ulid.ULID
	once        bool
	skipMarked  bool
	concurrency int
	output      string
}

func (f *replicateFlags) bind(c *kingpin.CmdClause) {
	f.to.bind(c, "objstore-to.config", "The bucket to copy into, written as the one of --objstore.config.")
	c.Flag("resolution", "Only blocks of this resolution: 0s (raw), 5m or 1h. May be given several times.").
		Default("0s", "5m", "1h").EnumsVar(&f.resolutions, "0s", "5m", "1h")
	c.Flag("compaction-min", "Only blocks of at least this level of compaction.").Default("1").
		SetValue(whole[int]{&f.least})
	c.Flag("compaction-max", "Only blocks of at most this level of compaction.").Default("4").
		SetValue(whole[int]{&f.most})
	c.Flag("compaction", "Only blocks of this level of compaction, instead of a least and a greatest one. May be given "+
		"several times.").IntsVar(&f.levels)
	c.Flag("matcher", "Only blocks whose external labels match: matchers (=, !=, =~, !~) with commas between, such as "+
		"tenant_id=\"a\",replica=~\"0|1\".").StringVar(&f.matcher)
	c.Flag("id", "Copy this block, whatever its resolution, level and labels are, and end. May be given several times.").
		PlaceHolder("ULID").SetValue(ulids{&f.ids})
	c.Flag("single-run", "Make one pass and end.").BoolVar(&f.once)
	c.Flag("ignore-marked-for-deletion", "Do not copy blocks that are marked for deletion. One that the target has gets "+
		"its mark.").BoolVar(&f.skipMarked)
	c.Flag("concurrency", "How many objects are copied at once.").Default("16").SetValue(whole[int]{&f.concurrency})
	bindOutput(c, &f.output, "text, or json: a line for each block that was not whole in the target, and one for both "+
		"sets of blocks")
}

// choice is what the flags choose.
func (f *replicateFlags) choice() (c replicate.Choice, err error) {
	c.Blocks, c.Levels = f.ids, f.levels
	for _, r := range f.resolutions {
		d, err := time.ParseDuration(r)
		if err != nil {
			return c, err
		}
		c.Resolutions = append(c.Resolutions, d.Milliseconds())
	}
	if len(c.Levels) == 0 {
		if f.least > f.most || f.least < 0 || f.most > maxLevel {
			return c, fmt.Errorf("--compaction-min=%d, --compaction-max=%d: the first one must not be larger, and both must be "+
				"between 0 and %d", f.least, f.most, maxLevel)
		}
		for l := f.least; l <= f.most; l++ {
			c.Levels = append(c.Levels, l)
		}
	}
	if f.concurrency < 1 || f.concurrency > maxCopies {
		return c, fmt.Errorf("--concurrency=%d: must be between 1 and %d", f.concurrency, maxCopies)
	}
	c.Matchers, err = externalMatchers(f.matcher)
	return c, err
}

// externalMatchers reads matchers in the form of Thanos's tool, which is that of Alertmanager: braces and quotes may be
// left out. They are compiled within the bounds of selectors.
func externalMatchers(text string) ([]*labels.Matcher, error) {
	parsed, err := amlabels.ParseMatchers(text)
	if err != nil {
		return nil, fmt.Errorf("--matcher: %w", err)
	}
	// A selector must have a matcher that does not match the empty text; external labels need none.
	selector := "{"
	for _, m := range parsed {
		selector += fmt.Sprintf("%q%s%q,", m.Name, m.Type, m.Value)
	}
	all, err := expr.Selectors(selector + `__name__!=""}`)
	if err != nil {
		return nil, fmt.Errorf("--matcher: %w", err)
	}
	return all[0][:len(parsed)], nil
}

const (
	maxLevel  = 1000 // of compaction
	maxCopies = 1024
)

func bindBucketReplicate(c *kingpin.CmdClause) func(*builder) {
	var (
		from  content
		http  httpFlags
		times blockChoice
		flags replicateFlags
	)
	from.bind(c, "objstore.config", bucketHelp)
	http.bind(c)
	times.bindTimes(c, "Only")
	flags.bind(c)
	return func(b *builder) {
		choice, err := flags.choice()
		b.check(err)
		server := http.build(b, http.users(b))
		source := openReplica(b, &from, "from", "it names the bucket to copy from")
		target := openReplica(b, &flags.to, "to", "it names the bucket to copy into")
		server.Add(b.ownRoutes()...)
		server.Add(httpx.StatusRoutes(b.status("", nil))...)
		r := replicate.New(b.log, source, target, replicate.NewMetrics(b.reg), replicate.Options{
			Filters: append(times.filters(b), choice.Filter()), SkipMarked: flags.skipMarked, Concurrency: flags.concurrency,
			Progress: b.progress("copying blocks"),
		})
		pass := func(ctx context.Context) error {
			report, err := r.Run(ctx)
			return errors.Join(err, writeReplicated(b.stdout, flags.output, report))
		}
		if flags.once || len(flags.ids) > 0 {
			b.runTool(func(ctx context.Context) error {
				if err := replicate.Allowed(ctx, source, target); err != nil {
					return err
				}
				return pass(ctx)
			})
			return
		}
		loop := &replicaLoop{pass: pass, fault: func(err error) {
			b.log.Error("source and target are not equal after this pass", "err", err)
		}}
		b.addPart("replicate", func(ctx context.Context, _ func(error)) error {
			if err := replicate.Allowed(ctx, source, target); err != nil {
				return err
			}
			loop.start()
			return nil
		}, loop.close, nil)
	}
}

// replicaLoop makes passes until it is closed.
type replicaLoop struct {
	pass  func(context.Context) error
	fault func(error)
	end   context.CancelFunc
	done  chan struct{}
}

func (l *replicaLoop) start() {
	ctx, end := context.WithCancel(context.Background())
	l.end, l.done = end, make(chan struct{})
	go func() {
		defer close(l.done)
		for {
			if err := l.pass(ctx); err != nil && ctx.Err() == nil {
				l.fault(err)
			}
			select {
			case <-time.After(replicateEvery):
			case <-ctx.Done():
				return
			}
		}
	}()
}

// close ends the pass that is under way, and waits for it.
func (l *replicaLoop) close() error {
	l.end()
	<-l.done
	return nil
}

// openReplica opens one of both buckets. Its metrics say which.
func openReplica(b *builder, config *content, role, why string) objstore.InstrumentedBucket {
	reg := prometheus.WrapRegistererWith(prometheus.Labels{"replicate": role}, b.reg)
	return openToolBucket(b, reg, config, why)
}

// writeReplicated writes what a pass did.
func writeReplicated(w io.Writer, output string, r replicate.Report) error {
	if output == "json" {
		out := json.NewEncoder(w)
		for _, o := range r.Blocks {
			if err := out.Encode(o); err != nil {
				return err
			}
		}
		return out.Encode(r)
	}
	var text strings.Builder
	for _, o := range r.Blocks {
		fmt.Fprintf(&text, "%s %s (%d objects, %d bytes)", o.Result, o.Block, o.Objects, o.Bytes)
		if o.Why != "" {
			fmt.Fprintf(&text, ": %q", o.Why)
		}
		text.WriteByte('\n')
	}
	for _, id := range r.Missing {
		fmt.Fprintf(&text, "missing %s\n", id)
	}
	for _, id := range r.Extra {
		fmt.Fprintf(&text, "only in the target %s\n", id)
	}
	for _, m := range r.Marks {
		fmt.Fprintf(&text, "only in the %s %s\n", m.In, block.Object(m.Block, m.Mark))
	}
	fmt.Fprintf(&text, "%d blocks in the source, %d of them in the target: %d were whole, %d are copied, %d are "+
		"repaired; equal: %v\n", r.Source, r.Target, r.Whole, r.Copied, r.Repaired, r.Equal)
	_, err := io.WriteString(w, text.String())
	return err
}
