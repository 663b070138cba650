package block

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/thanos-io/objstore"
)

// refusingBucket answers every read with err.
type refusingBucket struct {
	objstore.Bucket
	err error
}

func (b *refusingBucket) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if b.err != nil {
		return nil, b.err
	}
	return b.Bucket.Get(ctx, name)
}

// TestRefused: a refusal that waiting does not end is no outage. It says what to change, and is logged when it begins
// and ends.
func TestRefused(t *testing.T) {
	f := func(err error, want string) {
		t.Helper()
		r, refused := refusalOf(err)
		if refused != (want != "") || refused && (r.reason != want || !errors.Is(r, err)) {
			t.Errorf("%v: refused %v, want reason %q", err, refused, want)
		}
	}
	s3 := func(code string) error {
		return fmt.Errorf("get s3 object: %w", minio.ErrorResponse{Code: code, Message: code})
	}
	f(nil, "")
	f(s3("InvalidAccessKeyId"), "credentials")
	f(s3("SignatureDoesNotMatch"), "credentials")
	f(s3("AccessDenied"), "permission")
	f(s3("NoSuchBucket"), "bucket")
	f(s3("PermanentRedirect"), "region")
	f(minio.ErrorResponse{Code: "Odd", StatusCode: 403}, "permission")
	f(minio.ErrorResponse{Code: "RequestTimeTooSkewed", StatusCode: 403}, "")
	f(minio.ErrorResponse{Code: "Odd", StatusCode: 503}, "")
	f(s3("NoSuchKey"), "")
	f(s3("SlowDown"), "")
	f(s3("InternalError"), "")
	f(errors.New("dial tcp 10.0.0.1:9000: connect: connection refused"), "")
	f(context.DeadlineExceeded, "")
	if short := (minio.ErrorResponse{Code: "InvalidRange", StatusCode: 416}); !PastEnd(fmt.Errorf("get: %w", short)) ||
		PastEnd(s3("NoSuchKey")) {
		t.Error("a range past an object's end is not told from other faults")
	}
	f(errors.New("ERROR CODE: ContainerNotFound"), "bucket")
	f(fmt.Errorf("get: %w", errors.New("storage: bucket doesn't exist")), "bucket")

	var log bytes.Buffer
	reg := prometheus.NewRegistry()
	bkt := &refusingBucket{Bucket: objstore.NewInMemBucket()}
	told := newTelling(slog.New(slog.NewTextHandler(&log, nil)), reg, bkt)
	ask := func() error {
		_, err := told.Get(t.Context(), "x")
		return err
	}
	bkt.err = s3("SignatureDoesNotMatch")
	for range 3 {
		if err := ask(); !Refused(err) || !strings.Contains(err.Error(), "look at secret_key") {
			t.Fatal(err)
		}
	}
	bkt.err = nil
	if err := ask(); !told.IsObjNotFoundErr(err) || Refused(err) {
		t.Fatal(err)
	}
	if n := testutil.ToFloat64(told.refused.WithLabelValues("credentials")); n != 3 {
		t.Errorf("%v refusals are counted, want 3", n)
	}
	if lines := strings.Split(strings.TrimSpace(log.String()), "\n"); len(lines) != 2 ||
		!strings.Contains(lines[0], "level=ERROR") ||
		!strings.Contains(lines[1], "no longer refuses") {
		t.Errorf("the log says\n%s", &log)
	}
}
