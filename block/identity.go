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

// identityName is the object that names a bucket.
const identityName = "hearth/bucket.json"

// settle is how long a new identity must stay before it is believed, and twice what a creator may take to write one.
const settle = 2 * time.Second

// fresh is the age up to which an identity that was found is waited for, too.
const fresh = time.Minute

type identity struct {
	UUID string `json:"uuid"`
}

// ReadIdentity returns the bucket's uuid. Errors: NotFound when no Hearth process has written to it yet, Invalid,
// Unavailable.
func ReadIdentity(ctx context.Context, bkt objstore.BucketReader) (string, error) {
	var id identity
	if err := getJSON(ctx, bkt, identityName, &id); err != nil {
		return "", err
	}
	if id.UUID == "" || len(id.UUID) > 64 {
		return "", errs.E(errs.Invalid, "%s: uuid %q", identityName, id.UUID)
	}
	return id.UUID, nil
}

// Identity returns the bucket's uuid, and gives it one when it has none.
//
// Object stores offer no conditional write here, so processes that start at once on a new bucket may each write one. The
// last write is the one that stays. To agree on it: who finds none (1) writes within settle/2 or fails, (2) waits settle,
// so that everyone who found none at the same time has written too, (3) returns what it then reads; who finds one younger
// than fresh does 2 and 3. They agree as long as no write takes effect more than settle after it was given up and the
// bucket's clock is not behind by fresh. An object that was cut short is replaced in the same way.
func Identity(ctx context.Context, bkt objstore.Bucket) (string, error) {
	uuid, err := ReadIdentity(ctx, bkt)
	switch errs.KindOf(err) {
	case errs.OK:
		if !recent(ctx, bkt) {
			return uuid, nil
		}
	case errs.NotFound, errs.Invalid:
		if err := createIdentity(ctx, bkt); err != nil {
			return "", err
		}
	default:
		return "", err
	}
	select {
	case <-time.After(settle):
	case <-ctx.Done():
		return "", unavailable("wait for %s to settle: %w", identityName, ctx.Err())
	}
	return ReadIdentity(ctx, bkt)
}

// recent reports whether the identity may still be written over by somebody who found none. Not knowing means no: then
// it is the provider that keeps no times, and waiting at each start would help nobody.
func recent(ctx context.Context, bkt objstore.BucketReader) bool {
	attrs, err := bkt.Attributes(ctx, identityName)
	return err == nil && !attrs.LastModified.IsZero() && time.Since(attrs.LastModified) < fresh
}

func createIdentity(ctx context.Context, bkt objstore.Bucket) error {
	b, err := json.Marshal(identity{newUUID()})
	if err != nil {
		return errs.E(errs.Internal, "%s: %w", identityName, err)
	}
	ctx, cancel := context.WithTimeout(ctx, settle/2)
	defer cancel()
	if err := bkt.Upload(ctx, identityName, bytes.NewReader(b)); err != nil {
		return unavailable("create %s: %w", identityName, err)
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
