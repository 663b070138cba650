package deletion

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"slices"
	"strings"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// Folder is where the objects are.
const Folder = "hearth/deletions/"

// The ends of the names of objects. What is before is the id of the request.
const (
	requestEnd = ".json"
	undoEnd    = "-undo.json"
	renewalEnd = "-anew.json"
)

const (
	// maxObjects bounds how many objects are read. The oldest count.
	maxObjects = 10_000
	// faultReads bounds how many faulty objects are read again by one Read. In a bucket that is a directory an object is
	// seen while it is written, and somebody may repair one.
	faultReads = 100
)

// object is what is known of one object.
type object struct {
	request *Request
	change  *Change
	err     error
}

// name is the name of an object, and what it is of.
type name struct {
	object string
	id     ulid.ULID
	end    string
}

func parseName(full string) (name, bool) {
	rest, ok := strings.CutPrefix(full, Folder)
	if !ok || len(rest) <= ulid.EncodedSize {
		return name{}, false
	}
	id, err := ulid.ParseStrict(rest[:ulid.EncodedSize])
	n := name{full, id, rest[ulid.EncodedSize:]}
	known := n.end == requestEnd || n.end == undoEnd || n.end == renewalEnd
	return n, known && err == nil && id.String() == rest[:ulid.EncodedSize]
}

func nameOf(id ulid.ULID, end string) string { return Folder + id.String() + end }

// Reader reads what a bucket has. Each object is read once, since objects do not change.
type Reader struct {
	bkt   objstore.BucketReader
	known map[string]*object
}

// NewReader makes a Reader. It does no I/O.
func NewReader(bkt objstore.BucketReader) *Reader {
	if i, ok := bkt.(objstore.InstrumentedBucketReader); ok {
		bkt = i.ReaderWithExpectedErrs(bkt.IsObjNotFoundErr)
	}
	return &Reader{bkt: bkt, known: map[string]*object{}}
}

// Read lists the requests, with one listing, and reads those that are new. An undo or a renewal that was seen once
// counts for as long as its request is there, whatever a later listing shows: without it more would be deleted. Errors:
// Unavailable, then nothing has changed.
func (r *Reader) Read(ctx context.Context) (*List, error) {
	var names []name
	err := r.bkt.Iter(ctx, Folder, func(full string) error {
		if n, ok := parseName(full); ok {
			names = append(names, n)
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, errs.E(errs.Unavailable, "list %s: %w", Folder, err)
	}
	slices.SortFunc(names, func(a, b name) int { return strings.Compare(a.object, b.object) })
	faults := map[string]error{}
	if len(names) > maxObjects {
		faults[Folder] = errs.E(errs.Exhausted, "there are %d objects, and %d are read: what is beyond has no effect",
			len(names), maxObjects)
		names = names[:maxObjects]
	}
	listed, again := map[string]bool{}, faultReads
	for _, n := range names {
		listed[n.object] = true
		o := r.known[n.object]
		if o != nil && (o.err == nil || again == 0) {
			continue
		}
		if o != nil {
			again--
		}
		r.known[n.object] = r.read(ctx, n)
		if err := ctx.Err(); err != nil {
			return nil, errs.E(errs.Unavailable, "read %s: %w", Folder, err)
		}
	}
	for full, o := range r.known {
		n, _ := parseName(full)
		if !listed[nameOf(n.id, requestEnd)] || o.err != nil && !listed[full] {
			delete(r.known, full)
		}
	}
	return r.list(faults), nil
}

// read reads the object n.
func (r *Reader) read(ctx context.Context, n name) *object {
	raw, err := get(ctx, r.bkt, n.object)
	if err != nil {
		return &object{err: err}
	}
	if n.end == requestEnd {
		one, err := parseRequest(raw, n.id)
		return &object{request: &one, err: err}
	}
	one, err := parseChange(raw, n.id)
	return &object{change: &one, err: err}
}

// list is what is known.
func (r *Reader) list(faults map[string]error) *List {
	var all []*Entry
	for full, o := range r.known {
		if o.err != nil {
			faults[full] = o.err
		}
		n, _ := parseName(full)
		if n.end != requestEnd || o.err != nil {
			continue
		}
		e := &Entry{Request: *o.request}
		for end, to := range map[string]**Change{undoEnd: &e.Undo, renewalEnd: &e.Renewal} {
			switch c := r.known[nameOf(n.id, end)]; {
			case c == nil:
			case c.err != nil:
				e.Fault = c.err
			default:
				*to = c.change
			}
		}
		all = append(all, e)
	}
	return NewList(all, faults)
}

// get returns an object. Errors: Unavailable; Invalid, if it is too large. An object that is gone is Unavailable: the
// listing has just shown it.
func get(ctx context.Context, bkt objstore.BucketReader, name string) ([]byte, error) {
	r, err := bkt.Get(ctx, name)
	if err != nil {
		return nil, errs.E(errs.Unavailable, "read %s: %w", name, err)
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, maxObject+1))
	switch {
	case err != nil:
		return nil, errs.E(errs.Unavailable, "read %s: %w", name, err)
	case len(b) > maxObject:
		return nil, errs.E(errs.Invalid, "%s is larger than %d bytes", name, maxObject)
	}
	return b, nil
}

// Put writes a request. Errors: Invalid, TooLarge, Unavailable.
func Put(ctx context.Context, bkt objstore.Bucket, r Request) error {
	if err := r.Validate(); err != nil {
		return err
	}
	return put(ctx, bkt, nameOf(r.ID, requestEnd), r)
}

// PutUndo writes an undo. The caller has looked whether it comes in time.
func PutUndo(ctx context.Context, bkt objstore.Bucket, c Change) error {
	if err := c.Validate(); err != nil {
		return err
	}
	return put(ctx, bkt, nameOf(c.ID, undoEnd), c)
}

// PutRenewal writes what lets a deleted tenant be made anew.
func PutRenewal(ctx context.Context, bkt objstore.Bucket, c Change) error {
	if err := c.Validate(); err != nil {
		return err
	}
	return put(ctx, bkt, nameOf(c.ID, renewalEnd), c)
}

// put writes an object that is not there yet: objects never change.
func put(ctx context.Context, bkt objstore.Bucket, name string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return errs.E(errs.Internal, "%s: %w", name, err)
	}
	if len(raw) > maxObject {
		return errs.E(errs.TooLarge, "%s would have %d bytes, and may have %d", name, len(raw), maxObject)
	}
	there, err := bkt.Exists(ctx, name)
	if err == nil && there {
		return errs.E(errs.Conflict, "%s is there already", name)
	}
	if err == nil {
		err = bkt.Upload(ctx, name, bytes.NewReader(raw))
	}
	if err != nil {
		return errs.E(errs.Unavailable, "write %s: %w", name, err)
	}
	return nil
}
