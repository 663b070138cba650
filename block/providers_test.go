package block

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"
)

// TestProviders starts each provider against an endpoint that refuses everything: it fails in its own words, in bounded
// time, without a panic, and without a secret in an error or in the log. OCI and AZURE make a host name of their own
// from the configuration; here it is one that does not exist.
func TestProviders(t *testing.T) {
	const password = "hunter2hunter2"
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	private := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, "<Error><Code>AccessDenied</Code><Message>no</Message></Error>")
	}))
	defer endpoint.Close()
	host := strings.TrimPrefix(endpoint.URL, "http://")
	t.Setenv("TEST_SECRET", password)
	t.Setenv("STORAGE_EMULATOR_HOST", host)
	account := fmt.Sprintf(`{"type": "service_account", "project_id": "p", "private_key_id": "1", "private_key": %q,
		"client_email": "a@example.com", "client_id": "1", "token_uri": %q}`, private, endpoint.URL)

	f := func(kind objstore.ObjProvider, config string) {
		t.Run(string(kind), func(t *testing.T) {
			var log bytes.Buffer
			logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			said := ""
			bkt, err := OpenBucket(logger, prometheus.NewRegistry(), "test",
				fmt.Appendf(nil, "type: %s\nprefix: some/prefix\nconfig: %s\n", kind, config), "hearth-test")
			if err == nil {
				defer bkt.Close()
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				defer cancel()
				if err = bkt.Iter(ctx, "", func(string) error { return nil }); err == nil {
					t.Error("an endpoint that refuses everything can be listed")
				}
				r, getErr := bkt.Get(ctx, "object")
				if getErr == nil { // some clients connect when the body is read
					_, getErr = io.ReadAll(r)
				}
				_, attrErr := bkt.Attributes(ctx, "object")
				said = fmt.Sprint(getErr, attrErr)
				if getErr == nil {
					t.Error("an endpoint that refuses everything has an object")
				}
			}
			said = fmt.Sprint(err, said, log.String())
			for _, secret := range []string{password, "aHVudGVyMg==", private, strings.Split(private, "\n")[3]} {
				if strings.Contains(said, secret) {
					t.Errorf("a secret is shown: %s", said)
				}
			}
			if strings.Contains(said, "goroutine") {
				t.Errorf("a panic is shown: %s", said)
			}
			t.Log(err)
		})
	}
	names := map[objstore.ObjProvider]bool{}
	all := func(kind objstore.ObjProvider, config string) {
		names[kind] = true
		f(kind, config)
	}
	all(objstore.S3, "{bucket: bbb, endpoint: '"+host+"', insecure: true, access_key: key, secret_key: $(TEST_SECRET), "+
		"region: r, max_retries: 1, sse_config: {type: SSE-S3}}")
	all(objstore.GCS, fmt.Sprintf("{bucket: b, service_account: %q, max_retries: 1}", account))
	all(objstore.AZURE, "{storage_account: a, storage_account_key: aHVudGVyMg==, container: c, endpoint: '"+host+
		"', max_retries: 1, pipeline_config: {max_tries: 1}}")
	all(objstore.SWIFT, "{auth_version: 3, auth_url: '"+endpoint.URL+"/v3', username: u, password: $(TEST_SECRET), "+
		"user_domain_name: d, project_name: p, container_name: c, region_name: r, retries: 1}")
	all(objstore.COS, "{endpoint: '"+endpoint.URL+"', secret_id: i, secret_key: $(TEST_SECRET)}")
	all(objstore.ALIYUNOSS, "{endpoint: '"+endpoint.URL+"', bucket: bbb, access_key_id: i, "+
		"access_key_secret: $(TEST_SECRET)}")
	all(objstore.BOS, "{bucket: bbb, endpoint: '"+endpoint.URL+"', access_key: k, secret_key: $(TEST_SECRET)}")
	all(objstore.OBS, "{bucket: bbb, endpoint: '"+endpoint.URL+"', access_key: k, secret_key: $(TEST_SECRET)}")
	all(objstore.OCI, fmt.Sprintf("{provider: raw, bucket: b, compartment_ocid: c, tenancy_ocid: t, user_ocid: u, "+
		"region: us-nowhere-1, fingerprint: f, privatekey: %q, max_request_retries: 1}", private))
	names[objstore.FILESYSTEM] = true // it has no endpoint, and all other tests use it
	for kind := range providers {
		if !names[kind] {
			t.Errorf("%s is not tried", kind)
		}
	}
}
