package block

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"time"

	"github.com/thanos-io/objstore"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// identityName is the object that names a bucket and says whose it is.
const identityName = "hearth/bucket.json"

// settle is how long a new identity must stay before it is believed, and twice what a process may take to write one.
const settle = 2 * time.Second

// fresh is the age up to which an identity that was found may still be written over.
const fresh = time.Minute

// maxName bounds each text of an identity, in bytes. A cluster label may have 255.
const maxName = 255

// Identity is which bucket it is, and whose. A bucket that no process of this version has written to has no Owner.
type Identity struct {
	UUID string `json:"uuid"`
	Owner
}

// ReadIdentity returns what the bucket says of itself. Errors: NotFound when no Hearth process has written to it yet,
// Invalid, Unavailable.
func ReadIdentity(ctx context.Context, bkt objstore.BucketReader) (Identity, error) {
	id, _, err := readIdentity(ctx, bkt)
	return id, err
}

// readIdentity also returns all fields of the object, for a process that adds some.
func readIdentity(ctx context.Context, bkt objstore.BucketReader) (id Identity, fields map[string]json.RawMessage,
	err error) {
	raw, err := readJSON(ctx, bkt, identityName)
	if err != nil {
		return Identity{}, nil, err
	}
	if err := json.Unmarshal(raw, &id); err != nil {
		return Identity{}, nil, errs.E(errs.Invalid, "%s: %w", identityName, err)
	}
	if id.UUID == "" {
		return Identity{}, nil, errs.E(errs.Invalid, "%s: has no uuid", identityName)
	}
	for _, text := range []string{id.UUID, id.Cluster, id.TenantLabel, id.ReplicaLabel} {
		if len(text) > maxName {
			return Identity{}, nil, errs.E(errs.Invalid, "%s: a text of %d bytes", identityName, len(text))
		}
	}
	return id, fields, json.Unmarshal(raw, &fields)
}

// SettledIdentity is ReadIdentity for a process that compares the answer with that of others: it waits while another
// process may still write over what it found.
func SettledIdentity(ctx context.Context, bkt objstore.BucketReader) (Identity, error) {
	id, err := ReadIdentity(ctx, bkt)
	if err != nil || !recent(ctx, bkt) {
		return id, err
	}
	if err := waitSettled(ctx); err != nil {
		return Identity{}, err
	}
	return ReadIdentity(ctx, bkt)
}

// Claim returns the bucket's identity. A bucket without one gets one with the names of own, and one of an earlier
// version gets the names that it lacks; what else the object says is kept. check, which is MayWrite as a rule, sees
// each identity that is found; when it refuses, nothing is written, and its error is returned. Nothing is written into
// a bucket in Mimir's layout either (MayAdd).
//
// Object stores offer no conditional write that all providers share, so processes that start at once on a new bucket
// may each write an identity. The last write is the one that stays. To agree on it, a process
//
//  1. that finds none, or an incomplete one, writes within settle/2 or fails,
//  2. waits settle, so that all processes that found the same have written, too,
//  3. returns what it then reads.
//
// A process that finds a complete one, or one that check refuses, does 2 and 3 if that is younger than fresh. Two
// processes agree as long as no write takes effect more than settle after its writer gave it up, and the bucket's clock
// is not behind by fresh. An object that was cut short is replaced in the same way.
func Claim(ctx context.Context, bkt objstore.Bucket, own Owner, check func(Identity) error) (Identity, error) {
	if !own.complete() {
		return Identity{}, errs.E(errs.Invalid, "whose bucket it is: the cluster label and the names of the tenant's and "+
			"replica's labels must not be empty: %q, %q, %q", own.Cluster, own.TenantLabel, own.ReplicaLabel)
	}
	id, fields, err := readIdentity(ctx, bkt)
	var refused error
	switch errs.KindOf(err) {
	case errs.OK:
		refused = check(id)
	case errs.NotFound, errs.Invalid:
		id, fields = Identity{UUID: newUUID()}, nil
		if err := MayAdd(ctx, bkt); err != nil {
			return Identity{}, err
		}
	default:
		return Identity{}, err
	}
	switch {
	case refused == nil && !id.complete():
		id.Owner = id.Or(own)
		if err := writeIdentity(ctx, bkt, id, fields); err != nil {
			return Identity{}, err
		}
	case !recent(ctx, bkt):
		return id, refused
	}
	if err := waitSettled(ctx); err != nil {
		return Identity{}, err
	}
	if id, err = ReadIdentity(ctx, bkt); err == nil {
		err = check(id)
	}
	if err != nil {
		return Identity{}, err
	}
	return id, nil
}

func waitSettled(ctx context.Context) error {
	select {
	case <-time.After(settle):
		return nil
	case <-ctx.Done():
		return unavailable("wait for %s to settle: %w", identityName, ctx.Err())
	}
}

// recent reports whether the identity may still be written over by a process that found none. A provider that keeps no
// times gives no answer; then it counts as old, since waiting at each start would help nobody.
func recent(ctx context.Context, bkt objstore.BucketReader) bool {
	attrs, err := bkt.Attributes(ctx, identityName)
	return err == nil && !attrs.LastModified.IsZero() && time.Since(attrs.LastModified) < fresh
}

// writeIdentity writes id and those of fields that id does not have.
func writeIdentity(ctx context.Context, bkt objstore.Bucket, id Identity, fields map[string]json.RawMessage) error {
	b, err := json.Marshal(id)
	if err == nil {
		err = json.Unmarshal(b, &fields) // adds to it, and makes it if it is nil
	}
	if err == nil {
		b, err = json.Marshal(fields)
	}
	if err != nil {
		return errs.E(errs.Internal, "%s: %w", identityName, err)
	}
	ctx, cancel := context.WithTimeout(ctx, settle/2)
	defer cancel()
	if err := bkt.Upload(ctx, identityName, bytes.NewReader(b)); err != nil {
		return unavailable("write %s: %w", identityName, err)
	}
	return nil
}

// newUUID is a random (version 4) UUID.
func newUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
