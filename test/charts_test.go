package test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// chartAddress is a flag with a port of the process, and chartPath one with a path in the container.
var (
	chartAddress = regexp.MustCompile(`^(--(?:http|grpc|remote-write)[.-]address=).*$`)
	chartPath    = regexp.MustCompile(`^(--[a-z.-]+=)/(.*)$`)
)

// TestCharts: the argument lists of charts start their processes as they are, with one warning for the flags that a
// later version uses.
func TestCharts(t *testing.T) {
	t.Parallel()
	lists, err := os.ReadFile("testdata/charts.txt")
	if err != nil {
		t.Fatal(err)
	}
	for i, list := range strings.Split(string(lists), "\n== ") {
		name, args, _ := strings.Cut(strings.TrimSpace(list), "\n")
		if i == 0 {
			continue // the head
		}
		t.Run(name, func(t *testing.T) {
			http, args := chartArgs(t, strings.Split(args, "\n"))
			p := hearth(t, args[0], args...)
			p.waitFor("msg=serving", 30*time.Second)
			eventually(t, 10*time.Second, func() error { _, err := get("http://"+http+"/-/healthy", nil); return err })
			if n := strings.Count(p.output(), "no effect in this version"); n > 1 {
				t.Errorf("%d warnings of flags without a meaning:\n%s", n, p.output())
			}
			if args[0] != "query" { // whose endpoints are not there
				_, err := get("http://"+http+"/-/ready?verbose", nil)
				if wants := !strings.Contains(name, "router"); wants != (err == nil) { // its hashring file is empty
					t.Errorf("ready: %v", err)
				}
			}
			p.stop(20 * time.Second)
		})
	}
}

// chartArgs puts this machine's addresses and folders into the arguments, as a cluster does, and makes the files they
// name.
func chartArgs(t *testing.T, list []string) (http string, args []string) {
	t.Helper()
	dir, ports := t.TempDir(), freePorts(t, 3)
	objstore := fmt.Sprintf("type: filesystem\nconfig:\n  directory: %q\n", filepath.Join(dir, "bucket"))
	for path, text := range map[string]string{
		"conf/objstore.yml": objstore, "conf/http/http-config.yml": "basic_auth_users: {}\n", "conf/empty-hashrings.json": "[{}]",
		"conf/cache/index-cache.yml":  "type: MEMCACHED\nconfig:\n  addresses: [\"dns+memcached:11211\"]\n",
		"conf/cache/bucket-cache.yml": "type: MEMCACHED\nconfig:\n  addresses: [\"dns+memcached:11211\"]\n",
		"conf/hashrings.json":         `[{"hashring":"default","endpoints":[{"address":"127.0.0.1:10901","capnproto_address":"127.0.0.1:19391"}]}]`,
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, path), text)
	}
	fill := strings.NewReplacer("$(NAME)", "pod-0", "$(NAMESPACE)", "n", "$(OBJSTORE_CONFIG)", objstore, `\n`, "\n")
	for _, a := range list {
		a = fill.Replace(a)
		if m := chartAddress.FindStringSubmatch(a); m != nil {
			own := addr(ports[0])
			ports = ports[1:]
			if strings.HasPrefix(a, "--http-") {
				http = own
			}
			a = m[1] + own
		} else if m := chartPath.FindStringSubmatch(a); m != nil {
			a = m[1] + filepath.Join(dir, m[2])
		}
		args = append(args, a)
	}
	return http, args
}
