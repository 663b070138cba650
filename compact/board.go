package compact

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/hearth-metrics/hearth/block"
)

// Status is what a compactor does and has done, for people.
type Status struct {
	// Rests is why nothing is compacted, marked or deleted; "" = something is.
	Rests string `json:"rests,omitempty"`
	// View is the number of the view that the last look wrote, Blocks and Marked how many blocks it has, and how many of
	// them are marked for deletion.
	View   uint64 `json:"view"`
	Blocks int    `json:"blocks"`
	Marked int    `json:"marked"`
	// Passes are the loops.
	Passes []PassStatus `json:"passes"`
	// Running and Planned are the jobs of this process that run, and that are to be done.
	Running []JobStatus `json:"running"`
	Planned []JobStatus `json:"planned"`
	// Failed are jobs that failed and blocks that cannot be read.
	Failed []Failure `json:"failed"`
	// Deletions are the tenants that operators asked to delete.
	Deletions []block.TenantDeletion `json:"deletions"`
}

// PassStatus is the state of a loop.
type PassStatus struct {
	Name string `json:"name"`
	// Began and Ended are the times of the last pass; Ended is before Began while one is under way.
	Began time.Time `json:"began"`
	Ended time.Time `json:"ended"`
	// Fault is what the last pass left undone.
	Fault string `json:"fault,omitempty"`

	err error
}

// JobStatus is a job.
type JobStatus struct {
	// ID is that of its first output.
	ID string `json:"id"`
	// Kind, Stream (external labels), Resolution and times (Unix ms) say what it is about, Reason why it is to be done.
	Kind       string `json:"kind"`
	Stream     string `json:"stream"`
	Resolution int64  `json:"resolution"`
	MinTime    int64  `json:"minTime"`
	MaxTime    int64  `json:"maxTime"`
	Reason     string `json:"reason,omitempty"`
	// Inputs are the ids of the blocks that it merges, and Bytes how many bytes they have.
	Inputs []string `json:"inputs"`
	Bytes  int64    `json:"bytes"`
	// Began is when it began; Step what it does now.
	Began *time.Time `json:"began,omitempty"`
	Step  string     `json:"step,omitempty"`
	// Read is how many bytes of the inputs it has worked on, and BytesPerSecond how many of them in a second. Left is how
	// many seconds the rest takes at that rate; 0 = not known yet.
	Read           int64   `json:"read,omitempty"`
	BytesPerSecond float64 `json:"bytesPerSecond,omitempty"`
	Left           float64 `json:"secondsLeft,omitempty"`
}

// board is what the page shows.
type board struct {
	mu      sync.Mutex // guards all
	rests   string     // why nothing is done; "" = something is
	passes  []*PassStatus
	running map[string]*runningJob // by id
	planned []JobStatus
}

func (b *board) loop(name string) *PassStatus {
	for _, p := range b.passes {
		if p.Name == name {
			return p
		}
	}
	p := &PassStatus{Name: name}
	b.passes = append(b.passes, p)
	return p
}

func (b *board) begin(name string, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.loop(name).Began = at
}

// end keeps the outcome of a pass and returns that of the pass before.
func (b *board) end(name string, at time.Time, err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.loop(name)
	was := p.err
	p.Ended, p.err, p.Fault = at, err, ""
	if err != nil {
		p.Fault = err.Error()
	}
	return was
}

// fault is what the last pass of a loop left undone.
func (b *board) fault(name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.loop(name).err
}

func (b *board) start(j *runningJob) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.running == nil {
		b.running = map[string]*runningJob{}
	}
	b.running[j.ID] = j
}

func (b *board) finish(j *runningJob) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.running, j.ID)
}

// waiting is how many jobs of the last plan are still to be done.
func (b *board) waiting() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.planned)
}

// setRest keeps why nothing is done, and returns what it was before.
func (b *board) setRest(why string) (was string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	was, b.rests = b.rests, why
	return was
}

// Status is what the compactor does now.
func (c *Compactor) Status() Status {
	b, now := &c.board, c.opts.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	s := Status{Rests: b.rests, Planned: slices.Clone(b.planned), Running: []JobStatus{}, Failed: c.failures.list(),
		Deletions: []block.TenantDeletion{}}
	if l := c.last.Load(); l != nil {
		s.View, s.Blocks, s.Marked = l.view.Number, len(l.view.Metas), len(l.view.Deletions)
		s.Deletions = l.view.TenantDeletions(c.opts.TenantLabel, now)
	}
	for _, p := range b.passes {
		s.Passes = append(s.Passes, *p)
	}
	for _, j := range b.running {
		s.Running = append(s.Running, j.status(now))
	}
	slices.SortFunc(s.Running, func(a, b JobStatus) int { return cmp.Compare(a.ID, b.ID) })
	return s
}

// Viewed is what a compactor knows of its bucket. Its maps and slices are shared: they are only read.
type Viewed struct {
	View block.View
	// Live are the blocks that the compactor works on. Those that are marked for deletion are not among them.
	Live []*block.Meta
	// At is when the bucket was last looked at, Err what that left undone.
	At  time.Time
	Err error
}

// Viewed is what the last look at the bucket found. Before the first one it is empty.
func (c *Compactor) Viewed() Viewed {
	v := Viewed{Err: c.board.fault("look")}
	if l := c.last.Load(); l != nil {
		v.View, v.Live, v.At = l.view, l.live, l.at
	}
	return v
}
