package tenant

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/hearth-metrics/hearth/internal/errs"
)

func TestParse(t *testing.T) {
	f := func(s string, ok bool) {
		t.Helper()
		id, err := Parse(s)
		if (err == nil) != ok || ok && string(id) != s {
			t.Fatalf("Parse(%q) = %q, %v; want ok=%v", s, id, err, ok)
		}
		if err != nil && errs.KindOf(err) != errs.Invalid {
			t.Fatalf("Parse(%q): kind %v", s, errs.KindOf(err))
		}
	}
	f("acme", true)
	f("A-z_0.9!*'()@:+", true)
	f("two words", true)
	f("...", true)
	f(strings.Repeat("x", 150), true)
	for _, bad := range []string{"", ".", "..", "a/b", `a\b`, "a|b", "a\x00b", " a", "a ", "ü", "a\nb", "a%2fb", "../../etc", strings.Repeat("x", 151)} {
		f(bad, false)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("acme")
	f.Add("../x")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := Parse(s); err == nil &&
			(strings.ContainsAny(string(id), "/\\|\x00") || !utf8.ValidString(string(id)) || id == "." || id == "..") {
			t.Fatalf("%q is not safe as a path", id)
		}
	})
}

func TestParseSet(t *testing.T) {
	f := func(s string, want ...ID) {
		t.Helper()
		got, err := ParseSet(s)
		if want == nil {
			if err == nil {
				t.Fatalf("ParseSet(%q) = %q, want an error", s, got)
			}
			return
		}
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("ParseSet(%q) = %q, %v; want %q", s, got, err, want)
		}
	}
	f("a", "a")
	f("b|a|b", "a", "b")
	f("a|")
	f("a|..")
}

func TestResolver(t *testing.T) {
	f := func(r Resolver, want ID, pairs ...string) {
		t.Helper()
		h := http.Header{}
		for i := 0; i < len(pairs); i += 2 {
			h.Add(pairs[i], pairs[i+1])
		}
		got, err := r.Write(&http.Request{Header: h})
		if want == "" {
			if errs.KindOf(err) != errs.Invalid {
				t.Fatalf("%v: %q, %v; want Invalid", pairs, got, err)
			}
			return
		}
		if err != nil || got != want {
			t.Fatalf("%v: %q, %v; want %q", pairs, got, err, want)
		}
	}
	f(Resolver{}, Default)
	f(Resolver{Default: "d"}, "d")
	f(Resolver{}, "a", "THANOS-TENANT", "a")
	f(Resolver{}, "a", "X-Scope-OrgID", "a")
	f(Resolver{}, "a", "X-Scope-OrgID", "a", "THANOS-TENANT", "a")
	f(Resolver{}, "", "X-Scope-OrgID", "a", "THANOS-TENANT", "b")
	f(Resolver{}, "", "X-Scope-OrgID", "a", "X-Scope-OrgID", "b")
	f(Resolver{Header: "X-Team"}, "t", "X-Team", "t")
	f(Resolver{}, "", "X-Scope-OrgID", "a|b") // several tenants only on reads
	ids, err := Resolver{}.Read(&http.Request{Header: http.Header{"X-Scope-Orgid": {"b|a"}}})
	if err != nil || !slices.Equal(ids, []ID{"a", "b"}) {
		t.Fatalf("%q %v", ids, err)
	}
}
