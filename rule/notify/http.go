package notify

import (
	"context"
	"net/http"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// naming sends requests with a header that names the tenant.
func naming(header string, id tenant.ID) func(context.Context, *http.Client, *http.Request) (*http.Response, error) {
	return func(ctx context.Context, client *http.Client, req *http.Request) (*http.Response, error) {
		req.Header.Set(header, string(id))
		return client.Do(req.WithContext(ctx))
	}
}
