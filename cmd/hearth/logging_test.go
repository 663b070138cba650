package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"testing"
	"time"
)

// Whatever a value is, JSON has a string, a number, a boolean or a list of strings for it.
func TestPlainAttr(t *testing.T) {
	f := func(v any, want string) {
		t.Helper()
		var b bytes.Buffer
		newLogger(&b, "debug", "json").Info("m", "k", v)
		var line map[string]json.RawMessage
		if err := json.Unmarshal(b.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		if string(line["k"]) != want || string(line["level"]) != `"INFO"` {
			t.Errorf("%T: %s, want %s", v, &b, want)
		}
	}
	f("a", `"a"`)
	f(3, `3`)
	f(true, `true`)
	f(1500*time.Millisecond, `"1.5s"`)
	f(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80}, `"127.0.0.1:80"`)
	f(errors.New("bad"), `"bad"`)
	f([]string{"a", "b"}, `["a","b"]`)
	f([]string(nil), `[]`)
	f([]int{1}, `"[1]"`)
	f(struct{ A int }{1}, `"{1}"`)
	f(nil, `"<nil>"`)
}
