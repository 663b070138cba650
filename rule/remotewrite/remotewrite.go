// Package remotewrite sends the results of rules to servers by remote write, through Prometheus's agent: a log on disk,
// and a queue for each server.
//
// Flow: Storage -> the log of a tenant -> Prometheus's queues -> servers
//
// Invariants:
//   - What a Commit acknowledged is in the log, and is sent as long as the process runs.
//   - A tenant's samples have a log of their own, and requests that name the tenant.
//
// Prometheus's queues send no sample whose time is before their start. So what waits for a server when the process
// stops stays in the log and is never sent, and with a query offset the slots within the first offset of a process are
// not sent either.
//
// Locks: Writer.mu guards the tenants, and is held while the log of one is opened.
package remotewrite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb/agent"
	"github.com/prometheus/prometheus/util/compression"
	"go.yaml.in/yaml/v2"

	"github.com/hearth-metrics/hearth/internal/conf"
	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Options are the settings of a Writer.
type Options struct {
	// Dir is for the logs, a directory for each tenant.
	Dir string
	// Servers are those that get all samples, by Parse.
	Servers []*config.RemoteWriteConfig
	// External are labels that all series get.
	External labels.Labels
	// TenantHeader names the tenant in requests, except for the default tenant's.
	TenantHeader string
	// FlushDeadline bounds how long Close waits for what is under way.
	FlushDeadline time.Duration
}

// Parse reads servers in Prometheus's YAML: remote_write: [...]. Keys that are not known are passed over, as Thanos
// does.
func Parse(name string, text []byte) ([]*config.RemoteWriteConfig, error) {
	var file struct {
		RemoteWrite []*config.RemoteWriteConfig `yaml:"remote_write"`
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		return nil, fmt.Errorf("%s: %s", name, conf.Plain(err))
	}
	for i, c := range file.RemoteWrite {
		if c == nil {
			return nil, fmt.Errorf("%s: remote_write: item %d is empty", name, i+1)
		}
		if err := c.Validate(model.UTF8Validation); err != nil {
			return nil, fmt.Errorf("%s: remote_write: item %d: %s", name, i+1, conf.Plain(err))
		}
	}
	return file.RemoteWrite, nil
}

// Writer sends results. Its methods may be called by several goroutines.
type Writer struct {
	log  *slog.Logger
	reg  prometheus.Registerer
	opts Options

	mu      sync.Mutex // guards what follows
	tenants map[tenant.ID]*sending
	closed  bool
}

// sending is what one tenant has.
type sending struct {
	db     *agent.DB
	remote *remote.Storage
	both   storage.AppendableV2 // the log, and remote for its metrics alone
	newest atomic.Int64         // the time of the newest sample that was committed, in ms
}

// sent waits until the servers have what was committed, or have refused it for good, or ctx ends. The library knows
// only the second of the newest sample that went out.
func (s *sending) sent(ctx context.Context) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for newest := s.newest.Load() / 1000; newest > 0 && s.remote.LowestSentTimestamp()/1000 < newest; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.remote.Notify() // a queue that was busy when the log was written looks at it again after 15 s only
		}
	}
}

// New makes a Writer.
func New(log *slog.Logger, reg prometheus.Registerer, opts Options) (*Writer, error) {
	if len(opts.Servers) == 0 {
		return nil, errs.E(errs.Invalid, "remote write: no server is named")
	}
	return &Writer{log: log, reg: reg, opts: opts, tenants: map[tenant.ID]*sending{}}, nil
}

// Open goes on with the logs of an earlier process.
func (w *Writer) Open(context.Context, func(error)) error {
	if err := os.MkdirAll(w.opts.Dir, 0o777); err != nil {
		return err
	}
	entries, err := os.ReadDir(w.opts.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if id, err := tenant.Parse(e.Name()); err == nil && e.IsDir() {
			if _, err := w.of(id); err != nil {
				return fmt.Errorf("tenant %s: %w", id, err)
			}
		}
	}
	return nil
}

// Close ends all queues. It waits for the FlushDeadline that servers take what they have not got yet, which is lost to
// them after that.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	ctx, cancel := context.WithTimeout(context.Background(), w.opts.FlushDeadline)
	defer cancel()
	var faults []error
	for _, s := range w.tenants {
		s.sent(ctx)
	}
	for _, s := range w.tenants {
		faults = append(faults, s.remote.Close(), s.db.Close())
	}
	w.tenants = map[tenant.ID]*sending{}
	return errors.Join(faults...)
}

// of is what id has. It is opened when it is first needed.
func (w *Writer) of(id tenant.ID) (*sending, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.tenants[id]; s != nil {
		return s, nil
	}
	if w.closed {
		return nil, errs.E(errs.Unavailable, "remote write: closed")
	}
	reg := w.reg
	if reg != nil {
		reg = prometheus.WrapRegistererWith(prometheus.Labels{"tenant": string(id)}, reg)
	}
	dir := filepath.Join(w.opts.Dir, string(id)) // a tenant's name is always one
	s := &sending{remote: remote.NewStorage(w.log, reg, func() (int64, error) { return 0, nil }, dir,
		w.opts.FlushDeadline, nil, false)}
	opts := agent.DefaultOptions()
	opts.WALCompression, opts.NoLockfile = compression.Snappy, true
	var err error
	if s.db, err = agent.Open(w.log, withoutTSDB(reg), s.remote, dir, opts); err != nil {
		return nil, err
	}
	c := config.DefaultConfig
	c.GlobalConfig.ExternalLabels = w.opts.External
	for _, server := range w.opts.Servers {
		own := *server
		own.MetadataConfig.Send = false // results of rules have none
		if id != tenant.Default {
			own.Headers = map[string]string{w.opts.TenantHeader: string(id)}
			for k, v := range server.Headers {
				if k != w.opts.TenantHeader {
					own.Headers[k] = v
				}
			}
		}
		c.RemoteWriteConfigs = append(c.RemoteWriteConfigs, &own)
	}
	if err := s.remote.ApplyConfig(&c); err != nil {
		return nil, errors.Join(err, s.db.Close())
	}
	s.db.SetWriteNotified(s.remote)
	s.both = storage.NewFanout(w.log, s.db, s.remote)
	w.tenants[id] = s
	return s, nil
}

// Storage is where the results of a tenant's rules go. The queues send only samples whose time is later than their
// start, so it is called before the first slot of a tenant, whose samples would otherwise be in the log alone.
func (w *Writer) Storage(id tenant.ID) storage.AppendableV2 {
	if _, err := w.of(id); err != nil { // AppenderV2 tries again
		w.log.Warn("remote write: log of a tenant not opened", "tenant", string(id), "err", err)
	}
	return appendable{w, id}
}

type appendable struct {
	w  *Writer
	id tenant.ID
}

// AppenderV2 implements storage.AppendableV2.
func (a appendable) AppenderV2(ctx context.Context) storage.AppenderV2 {
	s, err := a.w.of(a.id)
	if err != nil {
		return &failed{err}
	}
	return &appender{AppenderV2: s.both.AppenderV2(ctx), of: s}
}

// appender notes the time of the newest sample.
type appender struct {
	storage.AppenderV2
	of     *sending
	newest int64
}

// Append implements storage.AppenderV2.
func (a *appender) Append(ref storage.SeriesRef, ls labels.Labels, st, t int64, v float64, h *histogram.Histogram,
	fh *histogram.FloatHistogram, opts storage.AOptions) (storage.SeriesRef, error) {
	ref, err := a.AppenderV2.Append(ref, ls, st, t, v, h, fh, opts)
	if err == nil {
		a.newest = max(a.newest, t)
	}
	return ref, err
}

// Commit implements storage.AppenderV2.
func (a *appender) Commit() error {
	err := a.AppenderV2.Commit()
	for now := a.of.newest.Load(); err == nil && a.newest > now; now = a.of.newest.Load() {
		if a.of.newest.CompareAndSwap(now, a.newest) {
			break
		}
	}
	return err
}

// failed is the appender of a log that cannot be opened.
type failed struct{ err error }

// Append implements storage.AppenderV2.
func (f *failed) Append(storage.SeriesRef, labels.Labels, int64, int64, float64, *histogram.Histogram,
	*histogram.FloatHistogram, storage.AOptions) (storage.SeriesRef, error) {
	return 0, f.err
}

// Commit implements storage.AppenderV2.
func (f *failed) Commit() error { return f.err }

// Rollback implements storage.AppenderV2.
func (*failed) Rollback() error { return nil }
