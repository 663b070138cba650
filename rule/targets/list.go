package targets

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/grafana/dskit/dns"
	"github.com/grafana/dskit/dns/godns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"go.yaml.in/yaml/v2"

	"github.com/hearth-metrics/hearth/internal/conf"
	"github.com/hearth-metrics/hearth/internal/gokit"
)

// List is the addresses of Configs, which it keeps up to date from Open to Close.
type List struct {
	log      *slog.Logger
	configs  []Config
	interval time.Duration
	resolver dns.Resolver
	changed  func([][]string)
	metrics  *metrics

	mu    sync.Mutex // guards what follows
	now   [][]string // by Config
	found map[string][]string

	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// NewList makes a List. Names and files are looked up every interval. changed is called with the addresses of each
// Config at first and after each change, one call at a time; nil = nobody wants to know.
func NewList(log *slog.Logger, configs []Config, interval time.Duration, changed func([][]string)) *List {
	return &List{
		log: log, configs: configs, interval: interval, changed: changed, found: map[string][]string{},
		resolver: dns.NewResolver(&godns.Resolver{Resolver: net.DefaultResolver}, gokit.NewQuiet(log, "dns")),
		now:      make([][]string, len(configs)),
		metrics:  newMetrics(nil, ""),
	}
}

// Register shows in reg what is looked up and found, under names of Thanos's ruler that begin with prefix. It is called
// before Open. reg may be nil.
func (l *List) Register(reg prometheus.Registerer, prefix string) {
	l.metrics = newMetrics(reg, prefix)
}

// Open looks all up once, and then goes on in the background.
func (l *List) Open(ctx context.Context, _ func(error)) error {
	l.refresh(ctx)
	ctx, l.cancel = context.WithCancel(context.Background())
	l.wg.Go(func() {
		tick := time.NewTicker(l.interval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				l.refresh(ctx)
			}
		}
	})
	return nil
}

// Close ends that.
func (l *List) Close() error {
	if l.cancel != nil {
		l.cancel()
	}
	l.wg.Wait()
	return nil
}

// Addresses are those of each Config at the moment. The caller must not change them.
func (l *List) Addresses() [][]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

// lookupTimeout bounds all lookups of one refresh.
const lookupTimeout = 10 * time.Second

func (l *List) refresh(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	next := make([][]string, len(l.configs))
	behind := map[string]int{}
	for i, c := range l.configs {
		names := slices.Clone(c.Static)
		for _, f := range c.Files {
			names = append(names, l.ofFiles(f.Files)...)
		}
		for _, name := range names {
			addresses := l.resolve(ctx, name)
			behind[name] = len(addresses)
			next[i] = append(next[i], addresses...)
		}
		slices.Sort(next[i])
		next[i] = slices.Compact(next[i])
	}
	l.metrics.found(behind)
	l.mu.Lock()
	same := slices.EqualFunc(l.now, next, slices.Equal)
	l.now = next
	first := l.cancel == nil
	l.mu.Unlock()
	if l.changed != nil && (first || !same) {
		l.changed(next)
	}
}

// keep gives what was found behind name, or the last that was, and logs a fault once.
func (l *List) keep(name string, found []string, err error) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	was, known := l.found[name]
	if err == nil {
		l.found[name] = found
		return found
	}
	if !known || was != nil {
		l.log.Warn("addresses not found; the last ones are used", "name", name, "last", was, "err", err)
	}
	if !known {
		l.found[name] = nil
	}
	return was
}

func (l *List) resolve(ctx context.Context, name string) []string {
	kind, host := dns.GetQTypeName(name)
	if kind == "" {
		return []string{name}
	}
	l.metrics.lookups.Inc()
	found, err := l.resolver.Resolve(ctx, host, dns.QType(kind))
	if err == nil && len(found) == 0 {
		err = errors.New("the name has no addresses")
	}
	if err != nil {
		l.metrics.failures.Inc()
	}
	return l.keep(name, found, err)
}

// ofFiles reads the addresses in files, which are in Prometheus's format.
func (l *List) ofFiles(patterns []string) (out []string) {
	for _, pattern := range patterns {
		paths, err := filepath.Glob(pattern)
		if err == nil && len(paths) == 0 {
			err = errors.New("no such file")
		}
		if err != nil {
			out = append(out, l.keep(pattern, nil, err)...)
			continue
		}
		for _, path := range paths {
			found, err := addressesIn(path)
			out = append(out, l.keep(path, found, err)...)
		}
	}
	return out
}

func addressesIn(path string) (out []string, err error) {
	text, err := conf.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var groups []*targetgroup.Group
	if err := yaml.Unmarshal(text, &groups); err != nil { // JSON is YAML
		return nil, fmt.Errorf("%s: %s", path, conf.Plain(err))
	}
	for _, g := range groups {
		if g == nil {
			continue
		}
		for _, t := range g.Targets {
			out = append(out, string(t[model.AddressLabel]))
		}
	}
	return out, nil
}
