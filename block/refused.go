package block

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/minio/minio-go/v7"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/thanos-io/objstore"
)

const allowAll = "these credentials may not do this: allow them to list, read, write and delete"

// refusals are the answers of object stores that stay the same until somebody changes the configuration or the bucket.
// S3 names a code; the others have it in their text.
var refusals = []struct{ code, reason, help string }{
	{"InvalidAccessKeyId", "credentials", "the access key is not known there: look at access_key"},
	{"XAdminUserNotFound", "credentials", "the access key is not known there: look at access_key"},
	{"SignatureDoesNotMatch", "credentials", "the secret key is wrong: look at secret_key"},
	{"AuthenticationFailed", "credentials", "the credentials are wrong: look at the account and its key"},
	{"AuthorizationFailure", "permission", allowAll},
	{"AccessDenied", "permission", allowAll},
	{"AuthorizationPermissionMismatch", "permission", allowAll},
	{"does not have storage.objects", "permission", allowAll},
	{"NoSuchBucket", "bucket", "there is no such bucket: create it, or look at bucket"},
	{"ContainerNotFound", "bucket", "there is no such container: create it, or look at container"},
	{"storage: bucket doesn't exist", "bucket", "there is no such bucket: create it, or look at bucket"},
	{"InvalidBucketName", "bucket", "no bucket can have this name: look at bucket"},
	{"AuthorizationHeaderMalformed", "region", "the bucket is in another region: look at region"},
	{"PermanentRedirect", "region", "the bucket is in another region: look at region and endpoint"},
}

// passing are codes that come with 403 and pass by themselves: the clock is set, the machine's credentials are renewed.
var passing = []string{"RequestTimeTooSkewed", "ExpiredToken", "RequestExpired", "SlowDown"}

// refusal is an error of an object store that does not pass by waiting.
type refusal struct {
	cause        error
	reason, help string
}

func (r *refusal) Error() string {
	return "the object store refuses this process: " + r.help + " (it says: " + r.cause.Error() + ")"
}

func (r *refusal) Unwrap() error { return r.cause }

// Cause is Unwrap for the providers, which look at errors with a library of their own.
func (r *refusal) Cause() error { return r.cause }

// Refused reports whether err says that the object store refuses this process until somebody changes its configuration
// or the bucket: wrong credentials, no such bucket. An outage is no refusal.
func Refused(err error) bool { return errors.As(err, new(*refusal)) }

// refusalOf returns err with what to do about it, if it is a refusal.
func refusalOf(err error) (*refusal, bool) {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return nil, false
	}
	code := ""
	var s3 minio.ErrorResponse
	if errors.As(err, &s3) {
		code = s3.Code
	}
	for _, r := range refusals {
		if code == r.code || code == "" && strings.Contains(err.Error(), r.code) {
			return &refusal{cause: err, reason: r.reason, help: r.help}, true
		}
	}
	forbidden := s3.StatusCode == http.StatusUnauthorized || s3.StatusCode == http.StatusForbidden
	if forbidden && !slices.Contains(passing, code) {
		return &refusal{cause: err, reason: "permission", help: allowAll}, true
	}
	return nil, false
}

// pastEnd is how object stores say that an object ends before the range that is asked for. Others answer with no bytes.
var pastEnd = regexp.MustCompile(`(?i)InvalidRange|range (is )?not satisfiable|response code 416`)

// PastEnd reports whether err says that an object has no byte where a range begins: the object is shorter than the
// reader believes.
func PastEnd(err error) bool {
	var s3 minio.ErrorResponse
	if errors.As(err, &s3) && s3.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		return true
	}
	return err != nil && pastEnd.MatchString(err.Error())
}

// telling is a bucket that logs when the object store begins to refuse this process, and when it no longer does.
type telling struct {
	objstore.Bucket
	log     *slog.Logger
	refused *prometheus.CounterVec

	mu      sync.Mutex        // guards refuses
	refuses map[string]string // the operations that are refused at present, with the reason
}

func newTelling(log *slog.Logger, reg prometheus.Registerer, bkt objstore.Bucket) *telling {
	t := &telling{Bucket: bkt, log: log, refuses: map[string]string{}, refused: promauto.With(reg).
		NewCounterVec(prometheus.CounterOpts{
			Name: "hearth_bucket_refused_total",
			Help: "Requests that the object store refused, and will refuse until something is changed, by reason: " +
				"credentials, permission, bucket, region.",
		}, []string{"reason"})}
	for _, r := range refusals {
		t.refused.WithLabelValues(r.reason)
	}
	return t
}

// judge takes in the outcome of an operation. It returns err, with what to do about it if it is a refusal.
func (t *telling) judge(doing string, err error) error {
	r, refused := refusalOf(err)
	if !refused {
		if err == nil || t.IsObjNotFoundErr(err) {
			t.change(doing, "", nil)
		}
		return err
	}
	t.refused.WithLabelValues(r.reason).Inc()
	t.change(doing, r.reason, r)
	return r
}

// change logs once that an operation is refused, and once that it no longer is.
func (t *telling) change(doing, reason string, err error) {
	t.mu.Lock()
	was := t.refuses[doing]
	t.refuses[doing] = reason
	t.mu.Unlock()
	switch {
	case was == reason:
	case reason != "":
		t.log.Error("the object store refuses this process until somebody changes its configuration or the bucket",
			"bucket", t.Name(), "refused", doing, "reason", reason, "err", err)
	default:
		t.log.Info("the object store no longer refuses this process", "bucket", t.Name(), "refused", doing)
	}
}

// Iter implements objstore.Bucket.
func (t *telling) Iter(ctx context.Context, dir string, f func(string) error, o ...objstore.IterOption) error {
	return t.judge("list", t.Bucket.Iter(ctx, dir, f, o...))
}

// IterWithAttributes implements objstore.Bucket.
func (t *telling) IterWithAttributes(ctx context.Context, dir string, f func(objstore.IterObjectAttributes) error,
	o ...objstore.IterOption) error {
	return t.judge("list", t.Bucket.IterWithAttributes(ctx, dir, f, o...))
}

// Get implements objstore.Bucket.
func (t *telling) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	r, err := t.Bucket.Get(ctx, name)
	return r, t.judge("read", err)
}

// GetRange implements objstore.Bucket.
func (t *telling) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	r, err := t.Bucket.GetRange(ctx, name, off, length)
	return r, t.judge("read", err)
}

// Exists implements objstore.Bucket.
func (t *telling) Exists(ctx context.Context, name string) (bool, error) {
	ok, err := t.Bucket.Exists(ctx, name)
	return ok, t.judge("read", err)
}

// Attributes implements objstore.Bucket.
func (t *telling) Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error) {
	a, err := t.Bucket.Attributes(ctx, name)
	return a, t.judge("read", err)
}

// Upload implements objstore.Bucket.
func (t *telling) Upload(ctx context.Context, name string, r io.Reader, o ...objstore.ObjectUploadOption) error {
	return t.judge("write", t.Bucket.Upload(ctx, name, r, o...))
}

// Delete implements objstore.Bucket.
func (t *telling) Delete(ctx context.Context, name string) error {
	return t.judge("delete", t.Bucket.Delete(ctx, name))
}
