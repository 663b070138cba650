package main

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/hearth-metrics/hearth/internal/tenant"
)

// parsed is a process of the flags, and what it logs.
func parsed(t *testing.T, args ...string) (*process, *bytes.Buffer) {
	t.Helper()
	app, _ := commands()
	app.Terminate(func(int) { t.Fatalf("%q ends the process", args) })
	app.UsageWriter(io.Discard).ErrorWriter(io.Discard)
	command, err := app.Parse(args)
	if err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	log := new(bytes.Buffer)
	return newProcess(app, command, io.Discard, log), log
}

func TestThanosFlags(t *testing.T) {
	for _, role := range []string{"receive", "query", "store", "sidecar", "rule"} {
		t.Run(role, func(t *testing.T) { checkThanosFlags(t, role) })
	}
}

func checkThanosFlags(t *testing.T, role string) {
	file, err := os.Open("testdata/thanos-" + role + "-flags.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	all, _ := parsed(t, role)
	idle := map[string]string{}
	for effect, table := range map[string][]idleFlag{
		"idle": commandNamed(role).idle.never, "later": commandNamed(role).idle.later, "elsewhere": commandNamed(role).idle.elsewhere,
	} {
		for _, f := range table {
			if len(f.reason) < 10 {
				t.Errorf("--%s: the reason %q says too little", f.name, f.reason)
			}
			idle[f.name] = effect
		}
	}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		line := lines.Text()
		if strings.HasPrefix(line, "#") {
			continue
		}
		effect, rest, _ := strings.Cut(line, " ")
		name, value, _ := strings.Cut(strings.TrimSpace(rest), " ")
		arg := "--" + name + "=" + value
		switch value {
		case "-":
			arg = "--" + name
		case "no":
			arg = "--no-" + name
		}
		p, log := parsed(t, role, arg)
		if p.flags[name] == all.flags[name] {
			t.Errorf("%s: its value is %q with and without it", arg, all.flags[name])
		}
		p.warnIdle()
		want := map[string]string{"idle": "flag=--" + name + " ", "later": `flags have no effect in this version" flags="--` + name + " ("}[effect]
		if warned := strings.Count(log.String(), "no effect"); want == "" && warned > 0 ||
			want != "" && (warned != 1 || !strings.Contains(log.String(), want)) {
			t.Errorf("%s: %s, warnings: %s", arg, effect, log)
		}
		if got := idle[name]; got != strings.TrimPrefix(effect, "effect") {
			t.Errorf("%s: %s, in the tables: %q", arg, effect, got)
		}
		delete(idle, name)
	}
	for name := range idle {
		t.Errorf("--%s is in the table and no flag of thanos %s", name, role)
	}
}

// TestLaterFlagsAreOneWarning: a chart that passes many of them gets one line, which names them all. Empty ones are
// not there.
func TestLaterFlagsAreOneWarning(t *testing.T) {
	p, log := parsed(t, "query", "--alert.query-url=http://x", "--web.prefix-header=X", "--store.sd-files=",
		"--objstore.config-file=x")
	p.warnIdle()
	if got := log.String(); strings.Count(got, "level=WARN") != 1 || !strings.Contains(got, "--alert.query-url (") ||
		!strings.Contains(got, "--web.prefix-header (") ||
		strings.Contains(got, "sd-files") ||
		strings.Contains(got, "objstore") {
		t.Error(got)
	}
}

// TestBucketFlagsOfRolesWithoutOne: all processes of a cluster may have the same flags.
func TestBucketFlagsOfRolesWithoutOne(t *testing.T) {
	for _, role := range []string{"distributor", "query"} {
		p, log := parsed(t, role, "--objstore.config=type: S3, secret: x", "--objstore.config-file=x.yml")
		p.warnIdle()
		if got := log.String(); got != "" || strings.Contains(p.flags["objstore.config"], "S3") {
			t.Errorf("%s: %s, %q", role, got, p.flags["objstore.config"])
		}
	}
}

func TestOtherNamesOfEndpoint(t *testing.T) {
	app, setups := commands()
	args := []string{"query", "--endpoint=a:1", "--endpoint=", "--store=b:1", "--rule=", "--endpoint-group=c:1",
		"--endpoint-group-strict=dnssrv+d", "--endpoint-strict=e:1", "--http-address=127.0.0.1:0",
		"--grpc-address=127.0.0.1:0"}
	command, err := app.Parse(args)
	if err != nil {
		t.Fatal(err)
	}
	log := new(bytes.Buffer)
	p := newProcess(app, command, io.Discard, log)
	if err := setups[command](p); err != nil {
		t.Fatal(err)
	}
	if got, want := app.GetCommand(command).GetFlag(
		"endpoint").Model().Value.String(), "a:1,b:1,dns+c:1,dnssrv+d,e:1"; got != want {
		t.Errorf("endpoints %s, want %s", got, want)
	}
	if got := log.String(); strings.Count(got, "taken as --endpoint") != 1 ||
		!strings.Contains(got, `flags="--endpoint-group, --endpoint-group-strict, --endpoint-strict, --store"`) {
		t.Error(got)
	}
	if _, err := app.Parse([]string{"query", "--stor=a:1"}); err == nil {
		t.Error("a flag that nobody knows is accepted")
	}
}

func TestOtherNamesOfTenantFlags(t *testing.T) {
	p, _ := parsed(t, "query", "--query.tenant-header=X-Team", "--query.default-tenant-id=team-a",
		"--query.tenant-label-name=team")
	for flag, want := range map[string]string{"receive.tenant-header": "X-Team", "receive.default-tenant-id": "team-a", "receive.tenant-label-name": "team"} {
		if got := p.flags[flag]; got != want {
			t.Errorf("--%s is %q, want %q", flag, got, want)
		}
	}
}

func TestIdleSwitch(t *testing.T) {
	p, log := parsed(t, "receive", "--no-tsdb.enable-native-histograms", "--enable-feature=a", "--enable-feature=b",
		"--tracing.config=")
	p.warnIdle()
	if n := strings.Count(log.String(), "flag has no effect"); n != 2 || p.flags["enable-feature"] != "a,b" {
		t.Errorf("%d warnings, %q:\n%s", n, p.flags["enable-feature"], log)
	}
}

func TestDebugName(t *testing.T) {
	p, log := parsed(t, "query", "--debug.name=blue", "--enable-feature=x")
	p.warnIdle()
	if got := log.String(); !strings.Contains(got, "name=blue") || !strings.Contains(got, "--enable-feature") {
		t.Error(got)
	}
}

// TestSidecarTenant: an address has the tenant that is given for itself, or for a name that stands for it. A name that
// is no endpoint stops the start, since the series behind it would be another tenant's.
func TestSidecarTenant(t *testing.T) {
	tenants := map[string]tenant.ID{}
	flag := addressTenants{tenants}
	for _, ok := range []string{"10.0.0.1:1=a", "dns+x:1=b", "dnssrv+_grpc._tcp.y=c", "dns+x:1=b"} {
		if err := flag.Set(ok); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "=a", "x=a", "dns+x=a", "http+x:1=a", "x:1", "x:1=", "dns+x:1=c"} {
		if err := flag.Set(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	behind := func(name string) []string {
		return map[string][]string{"dns+x:1": {"10.0.0.1:1", "10.0.0.2:1"}, "dnssrv+_grpc._tcp.y": {"10.0.0.2:1", "10.0.0.3:1"},
			"10.0.0.1:1": {"10.0.0.1:1"}}[name]
	}
	for addr, want := range map[string]tenant.ID{"10.0.0.1:1": "a", "10.0.0.2:1": "b", "10.0.0.3:1": "c", "10.0.0.4:1": ""} {
		if got := sidecarTenant(tenants, addr, behind); got != want {
			t.Errorf("%s: %q, want %q", addr, got, want)
		}
	}
	f := endpointFlags{tenants: tenants, addresses: []string{"dns+x:1"}}
	if err := f.checkTenants(); err == nil || !strings.Contains(err.Error(), "dnssrv+_grpc._tcp.y is not") {
		t.Error(err)
	}
	f.addresses = append(f.addresses, "dnssrv+_grpc._tcp.y")
	if err := f.checkTenants(); err != nil {
		t.Error(err)
	}
}
