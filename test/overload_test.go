package test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
)

// rss is the resident memory of a process in bytes, now and at its highest.
func rss(t *testing.T, pid int) (now, most int64) {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		fmt.Sscanf(line, "VmRSS: %d kB", &now)
		fmt.Sscanf(line, "VmHWM: %d kB", &most)
	}
	return now << 10, most << 10
}

// A process with little memory is sent far more at once than it can hold: bombs, large requests, and bodies that never
// end.
// Its memory stays within bounds, who overloads it is refused, and a tenant that asks for little is served meanwhile.
func TestOverload(t *testing.T) {
	const limit = 512 << 20
	ports := freePorts(t, 3)
	p := start(t, "hearth", hearthBinary, []string{fmt.Sprint("GOMEMLIMIT=", limit)}, "--data-dir="+t.TempDir(),
		"--http-address="+addr(ports[0]), "--grpc-address="+addr(ports[1]), "--remote-write.address="+addr(ports[2]),
		"--self-scrape.interval=0s")
	base := "http://" + addr(ports[0])
	p.ready(base+"/-/ready", 30*time.Second)
	if err := post(base, "calm", writeBody("calm", 1, time.Now().UnixMilli())); err != nil {
		t.Fatal(err)
	}
	before, _ := rss(t, p.cmd.Process.Pid)

	one, err := (&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{Labels: []prompb.Label{{Name: "__name__",
		Value: "bomb"}}, Samples: []prompb.Sample{{}}}}}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	bodies := [][]byte{
		snappy.Encode(nil, bytes.Repeat(one, 1_000_000)),        // 30 MB that would be 300 MB of series
		snappy.Encode(nil, bytes.Repeat(one, 200_000)),          // fits, a few times
		snappy.Encode(nil, make([]byte, 127<<20)),               // decompresses to what may come at most
		bytes.Repeat([]byte{0xff, 0xff, 0xff, 0x0f, 0x55}, 1e6), // says that it decompresses to more
	}
	var greedy sync.WaitGroup
	var refused, answered atomic.Int64
	stop := make(chan struct{})
	for i := range 48 {
		greedy.Go(func() {
			for n := i; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				body := io.Reader(bytes.NewReader(bodies[n%len(bodies)]))
				if n%6 == 5 { // a client that sends 4 MB in half a second and breaks off
					body = &trickle{left: 16, chunk: make([]byte, 256<<10)}
				}
				req, err := http.NewRequest(http.MethodPost, base+"/api/v1/receive", body)
				if err != nil {
					t.Error(err)
					return
				}
				req.Header = writeHeader(tenantHeader(fmt.Sprint("greedy-", i%3)))
				if n%2 == 0 {
					req.ContentLength = -1 // chunked
				}
				if res, err := http.DefaultClient.Do(req); err == nil {
					io.Copy(io.Discard, res.Body)
					res.Body.Close()
					answered.Add(1)
					if res.StatusCode == 503 {
						refused.Add(1)
						if res.Header.Get("Retry-After") == "" {
							t.Error("503 without Retry-After")
						}
					}
				}
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
	end, writes, late := time.Now().Add(10*time.Second), 0, time.Duration(0)
	for time.Now().Before(end) {
		began := time.Now()
		eventually(t, 10*time.Second, func() error { return post(base, "calm", writeBody("calm", 10, began.UnixMilli())) })
		late = max(late, time.Since(began))
		writes++
		time.Sleep(20 * time.Millisecond)
	}
	close(stop)
	greedy.Wait()
	_, most := rss(t, p.cmd.Process.Pid)
	t.Logf("resident: %d MiB before, %d MiB at most; %d requests answered, %d of them 503; %d writes of the calm tenant, the slowest after %v",
		before>>20, most>>20, answered.Load(), refused.Load(), writes, late)
	if most > limit*5/4 {
		t.Errorf("%d MiB resident with a limit of %d MiB", most>>20, int64(limit)>>20)
	}
	if refused.Load() == 0 {
		t.Error("nothing was refused: the load is too small")
	}
	if writes < 20 {
		t.Errorf("the calm tenant wrote %d times in 10 s", writes)
	}
}

// trickle is a body that comes slowly and breaks off.
type trickle struct {
	left  int
	chunk []byte
}

func (b *trickle) Read(p []byte) (int, error) {
	if b.left--; b.left < 0 {
		return 0, io.ErrUnexpectedEOF
	}
	time.Sleep(30 * time.Millisecond)
	return copy(p, b.chunk), nil
}

// Relabelling rules come from a file, and are others after a reload; bad ones change nothing.
func TestRelabelConfig(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "relabel.yml")
	writeFile(t, file, `[{action: drop, source_labels: [job], regex: secret}, {target_label: site, replacement: one}]`)
	p, base := startAll(t, t.TempDir(), "--receive.relabel-config-file="+file)
	now := time.Now().UnixMilli()
	count := func(selector string) (float64, error) {
		a := api{base: base, header: tenantHeader("acme")}
		ans, err := a.query(`count(`+selector+`) or vector(0)`, time.UnixMilli(now))
		if err != nil {
			return 0, err
		}
		return scalarOf(ans)
	}
	f := func(job, selector string, want float64) {
		t.Helper()
		if err := post(base, "acme", writeBody(job, 5, now)); err != nil {
			t.Fatal(err)
		}
		if n, err := count(selector); err != nil || n != want {
			t.Errorf("%s: %v series, %v, want %v", selector, n, err, want)
		}
	}
	f("plain", `load{job="plain",site="one"}`, 5)
	f("secret", `load{job="secret"}`, 0)
	writeFile(t, file, `[{action: nonsense}]`)
	if _, err := do(http.MethodPost, base+"/-/reload", nil, nil); err == nil ||
		!strings.Contains(err.Error(), "relabel-config") {
		t.Errorf("reload of bad rules: %v", err)
	}
	f("secret", `load{job="secret"}`, 0)
	writeFile(t, file, `[{target_label: site, replacement: two}]`)
	p.signal(syscall.SIGHUP)
	eventually(t, 10*time.Second, func() error {
		if err := post(base, "acme", writeBody("secret", 5, now)); err != nil {
			return err
		}
		if n, err := count(`load{job="secret",site="two"}`); err != nil || n != 5 {
			return fmt.Errorf("%v series, %v", n, err)
		}
		return nil
	})
	refuses(t, nil, []string{"all", "--data-dir=" + t.TempDir(), "--receive.relabel-config=[{action: hashmod}]"},
		"--receive.relabel-config", "modulus")
}
