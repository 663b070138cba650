package secret

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/hearth-metrics/hearth/internal/errs"
)

func TestTextIsNotPrinted(t *testing.T) {
	const content = "type: S3\nsecret_key: hunter2"
	x := New(content)
	inside := struct {
		A Text
		B *Text
	}{x, &x}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("config", "text", x, "inside", inside)
	j, err := json.Marshal(inside)
	if err != nil {
		t.Fatal(err)
	}
	shown := []string{log.String(), string(j), x.String()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		shown = append(shown, fmt.Sprintf(verb, x), fmt.Sprintf(verb, inside), fmt.Sprintf(verb, &x))
	}
	for _, s := range shown {
		if strings.Contains(s, "hunter2") || strings.Contains(s, fmt.Sprintf("%x", "hunter2")) {
			t.Errorf("shown: %s", s)
		}
	}
	if x.Reveal() != content || New("").String() != "" {
		t.Error("the content is lost, or nothing is shown as a secret")
	}
}

func TestScrub(t *testing.T) {
	f := func(content, err, want string) {
		t.Helper()
		got := Scrub([]byte(content), errs.E(errs.Invalid, "%s", err))
		if got.Error() != want || errs.KindOf(got) != errs.Invalid {
			t.Errorf("%q: %v, want %q", err, got, want)
		}
	}
	const s3 = "type: S3\nconfig:\n  buckte: metrics\n  secret_key: abcdefghijkl\n  insecure: hunter2\n"
	f(s3, "line 3: field buckte not found in type s3.Config", "line 3: field buckte not found in type s3.Config")
	f(s3, "cannot unmarshal !!str `hunter2` into bool", "cannot unmarshal !!str `<secret>` into bool")
	f(s3, "cannot unmarshal !!str `abcdefg...` into int", "cannot unmarshal !!str `<secret>` into int")
	f("secret_key: *hunter2", "yaml: unknown anchor 'hunter2' referenced", "yaml: unknown anchor '<secret>' referenced")
	f("{type: S3, config: {secret_key: pw1}}", "bad key pw1", "bad key <secret>")
	f("hunter2", "cannot unmarshal !!str `hunter2` into a struct", "cannot unmarshal !!str `<secret>` into a struct")
	if got := Scrub([]byte("type: NONE\nkey: pw"), errors.New("NONE pw"), "type"); got.Error() != "NONE <secret>" {
		t.Error(got)
	}
	if Scrub(nil, nil) != nil {
		t.Error("no error became one")
	}
	inner := errors.New("hunter2")
	if errors.Is(Scrub([]byte("a: hunter2"), inner), inner) {
		t.Error("the error that quotes can be unwrapped")
	}
}

// Whatever the parser says of a broken configuration, the value is not in it.
func FuzzScrub(f *testing.F) {
	for _, s := range []string{"", "*", "&", "!", "%", "@", "`", "[", "{", "- ", ": ", "\t", "'"} {
		f.Add(s, "")
	}
	f.Fuzz(func(t *testing.T, before, after string) {
		const value = "hunter2secret"
		content := []byte("type: S3\nconfig:\n  secret_key: " + before + value + after + "\n")
		var to struct {
			Type   string
			Config struct {
				Key int `yaml:"secret_key"`
			}
		}
		err := Scrub(content, yaml.Unmarshal(content, &to))
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", content, err)
		}
	})
}

func TestURLs(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		if got := URLs(text); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	f("http://anna:ember@host:1 x", "http://<secret>@host:1 x")
	f("redis://:em@ber@host:1/0,http://anna:ember@b/x@y", "redis://<secret>@host:1/0,http://<secret>@b/x@y")
	f("http://a:1,http://anna:ember@b", "http://a:1,http://<secret>@b")
}
