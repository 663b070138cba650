package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
)

// TestTenants writes the same series for two tenants and reads each alone, both, and over StoreAPI.
func TestTenants(t *testing.T) {
	_, base := startAll(t, t.TempDir())
	now := time.Now().UnixMilli()
	write := func(tenant string, v float64, labels ...string) {
		t.Helper()
		body := encode(&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{sample(now, v, labels...)}})
		if _, err := do(http.MethodPost, base+"/api/v1/push", writeHeader(tenantHeader(tenant)), body); err != nil {
			t.Fatal(err)
		}
	}
	write("red", 1, "__name__", "same", "job", "x")
	write("blue", 2, "__name__", "same", "job", "x")
	write("red", 3, "__name__", "own", "tenant_id", "mine", "receive_replica", "also-mine")
	write("red", 4, "__name__", "own", "tenant_id", "other", "receive_replica", "also-mine")
	at := time.UnixMilli(now).Add(time.Second)

	value := func(tenant string) string {
		t.Helper()
		ans, err := api{base: base, header: tenantHeader(tenant)}.query(`same`, at)
		if err != nil {
			t.Fatal(err)
		}
		return string(ans.Data)
	}
	for _, flushed := range []bool{false, true} {
		if flushed { // blocks in the bucket keep tenants apart as heads do
			if _, err := do(http.MethodPost, base+"/api/v1/admin/flush", nil, nil); err != nil {
				t.Fatal(err)
			}
		}
		f := func(tenant, want string) {
			t.Helper()
			if d := diff(json.RawMessage(want), json.RawMessage(value(tenant))); d != "" {
				t.Errorf("flushed=%v tenant %s: %s", flushed, tenant, d)
			}
		}
		stamp := fmt.Sprintf("%.3f", float64(at.UnixMilli())/1000)
		f("red", `{"resultType":"vector","result":[{"metric":{"__name__":"same","job":"x"},"value":[`+stamp+`,"1"]}]}`)
		f("blue", `{"resultType":"vector","result":[{"metric":{"__name__":"same","job":"x"},"value":[`+stamp+`,"2"]}]}`)
		f("green", `{"resultType":"vector","result":[]}`)
		f("red|blue",
			`{"resultType":"vector","result":[{"metric":{"__name__":"same","job":"x","tenant_id":"blue"},"value":[`+stamp+`,"2"]},`+
				`{"metric":{"__name__":"same","job":"x","tenant_id":"red"},"value":[`+stamp+`,"1"]}]}`)
		checkOwnLabels(t, api{base: base, header: tenantHeader("red")}, at, stamp)
	}
	blue := api{base: base, header: tenantHeader("blue")}
	ans, err := blue.get("label/__name__/values", url.Values{})
	if err != nil || strings.Contains(string(ans.Data), "own") {
		t.Errorf("blue sees red's label values: %s %v", ans.Data, err)
	}
}

// checkOwnLabels reads back series whose own labels are called as Hearth's attributes are.
func checkOwnLabels(t *testing.T, red api, at time.Time, stamp string) {
	t.Helper()
	for expr, want := range map[string]string{
		`own{tenant_id="mine"}`:                              `{"resultType":"vector","result":[{"metric":{"__name__":"own","receive_replica":"also-mine","tenant_id":"mine"},"value":[` + stamp + `,"3"]}]}`,
		`own{receive_replica="also-mine",tenant_id!="mine"}`: `{"resultType":"vector","result":[{"metric":{"__name__":"own","receive_replica":"also-mine","tenant_id":"other"},"value":[` + stamp + `,"4"]}]}`,
		`count(own)`:           `{"resultType":"vector","result":[{"metric":{},"value":[` + stamp + `,"2"]}]}`,
		`own{tenant_id="red"}`: `{"resultType":"vector","result":[]}`,
	} {
		ans, err := red.query(expr, at)
		if err != nil {
			t.Errorf("%s: %v", expr, err)
			continue
		}
		if d := diff(json.RawMessage(want), ans.Data); d != "" {
			t.Errorf("%s: %s", expr, d)
		}
	}
}
