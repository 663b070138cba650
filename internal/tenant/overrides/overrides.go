package overrides

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/hearth-metrics/hearth/internal/conf"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// Overrides is the limits of all tenants, live.
type Overrides struct {
	log     *slog.Logger
	metrics *metrics
	opts    Options
	table   atomic.Pointer[tenant.LimitTable]
	status  atomic.Pointer[Status]

	mu       sync.Mutex // guards what follows; held while files are read
	hash     uint64     // of the files in force
	loaded   bool       // files were read once
	fault    string     // of the last read, "" = none
	warned   bool       // the log says that meta-monitoring is not needed
	requests int        // see MaxConcurrency

	stop func() // nil until opened
}

// Status is the result of reading the files.
type Status struct {
	// OK says whether they were valid when they were last read.
	OK bool
	// At is when they were last valid.
	At time.Time
	// Err says what is wrong with them now; nil when OK.
	Err error
}

// DefaultOptions follow no file.
func DefaultOptions() Options {
	return Options{
		Base: tenant.DefaultLimits(), ReplicationFactor: 1, Settle: time.Second, Interval: 10 * time.Second,
		Getenv: os.LookupEnv, Now: time.Now,
	}
}

// New makes Overrides with the limits of opts.Base. No file is read before Reload.
func New(log *slog.Logger, reg prometheus.Registerer, opts Options) (*Overrides, error) {
	if err := opts.Validate(); err != nil {
		return nil, fmt.Errorf("limits: %w", err)
	}
	t, err := tenant.NewLimitTable(opts.Base)
	if err != nil {
		return nil, err
	}
	o := &Overrides{log: log, opts: opts}
	o.table.Store(t)
	o.status.Store(&Status{OK: true, At: opts.Now()})
	o.metrics = newMetrics(reg, o.Table)
	return o, nil
}

// Of is a tenant's limits. It is a tenant.LimitsOf.
func (o *Overrides) Of(id tenant.ID) *tenant.Limits { return o.table.Load().Of(id) }

// Table is the limits of all tenants now. The caller must not change it.
func (o *Overrides) Table() *tenant.LimitTable { return o.table.Load() }

// Status is the result of the last read.
func (o *Overrides) Status() Status { return *o.status.Load() }

// MaxConcurrency is how many writes at a time Thanos's limits file allows the process, 0 = it does not say.
func (o *Overrides) MaxConcurrency() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.requests
}

// Reload reads the files now. When one is not valid the last good limits stay in force, and the error says why.
func (o *Overrides) Reload() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.reload()
}

// reload is called with o.mu held.
func (o *Overrides) reload() error {
	o.metrics.reads.Inc()
	was := o.Status()
	if err := o.load(); err != nil {
		o.metrics.faults.Inc()
		o.metrics.good.Set(0)
		o.status.Store(&Status{At: was.At, Err: err})
		o.fault = err.Error()
		return err
	}
	now := o.opts.Now()
	o.metrics.good.Set(1)
	o.metrics.loaded.Set(float64(now.UnixMilli()) / 1000)
	o.status.Store(&Status{OK: true, At: now})
	if o.fault != "" {
		o.log.Info("limits files are valid again")
		o.fault = ""
	}
	return nil
}

// load puts the files in force.
func (o *Overrides) load() error {
	thanos, err := o.readThanos()
	if err != nil {
		return err
	}
	own, err := read(o.opts.File)
	if err != nil {
		return err
	}
	hash := xxhash.New()
	_, _ = hash.Write(thanos)
	_, _ = hash.Write([]byte{0})
	_, _ = hash.Write(own)
	if o.loaded && hash.Sum64() == o.hash {
		return nil
	}
	if err := o.use(thanos, own); err != nil {
		return err
	}
	o.hash, o.loaded = hash.Sum64(), true
	o.metrics.hash.Set(float64(o.hash >> 11)) // as many bits as a float has
	return nil
}

// use puts the content of files in force, unless it has faults: then the error tells all of them.
func (o *Overrides) use(thanosRaw, ownRaw []byte) error {
	thanosName := o.thanosName()
	thanos, thanosErr := tenant.ParseThanosLimits(thanosName, thanosRaw, o.opts.ReplicationFactor)
	own, ownErr := tenant.ParseLimits(o.opts.File, ownRaw)
	if err := errors.Join(thanosErr, ownErr); err != nil {
		return err
	}
	table, err := tenant.NewLimitTable(o.opts.Base, &thanos.LimitFile, own)
	if err != nil {
		return fmt.Errorf("limits: %w", err)
	}
	table.Keep(o.table.Load())
	o.table.Store(table)
	if thanos.MetaMonitoring && !o.warned {
		o.warned = true
		o.log.Warn("meta_monitoring_* has no effect: receivers count the series of their tenants themselves, exactly",
			"file", thanosName)
	}
	if o.loaded && thanos.MaxConcurrency != o.requests {
		o.log.Warn("max_concurrency takes effect at the next start", "file", thanosName, "max_concurrency",
			thanos.MaxConcurrency)
	} else {
		o.requests = thanos.MaxConcurrency
	}
	if o.opts.File != "" || thanosRaw != nil {
		o.log.Info("limits in force", "files", o.names(), "tenants", len(table.Tenants))
	}
	return nil
}

// thanosName is what errors call Thanos's limits.
func (o *Overrides) thanosName() string {
	if o.opts.ThanosFile == "" {
		return "--receive.limits-config"
	}
	return o.opts.ThanosFile
}

// files are those to follow.
func (o *Overrides) files() []string {
	var all []string
	for _, f := range []string{o.opts.ThanosFile, o.opts.File} {
		if f != "" {
			all = append(all, f)
		}
	}
	return all
}

// names is where the limits are from, for people.
func (o *Overrides) names() []string {
	if o.opts.ThanosContent != nil {
		return append([]string{"--receive.limits-config"}, o.files()...)
	}
	return o.files()
}

func read(file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	return conf.ReadFile(file)
}

// variable is $(NAME) in Thanos's files.
var variable = regexp.MustCompile(`\$\(([a-zA-Z_0-9]+)\)`)

func (o *Overrides) readThanos() ([]byte, error) {
	raw := o.opts.ThanosContent
	if raw == nil {
		var err error
		if raw, err = read(o.opts.ThanosFile); err != nil || raw == nil {
			return nil, err
		}
	}
	var faults []error
	raw = variable.ReplaceAllFunc(raw, func(m []byte) []byte {
		name := string(m[2 : len(m)-1])
		value, ok := o.opts.Getenv(name)
		if !ok {
			faults = append(faults, fmt.Errorf("%s: $(%s): the environment has no such variable", o.thanosName(), name))
		}
		return []byte(value)
	})
	return raw, errors.Join(faults...)
}
