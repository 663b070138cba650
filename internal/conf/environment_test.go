package conf

import (
	"strings"
	"testing"
)

func TestExpandEnv(t *testing.T) {
	t.Setenv("KEY_1", "a$(KEY_2)")
	t.Setenv("EMPTY", "")
	f := func(in, want, fault string) {
		t.Helper()
		out, err := ExpandEnv("bucket.yml", []byte(in))
		switch {
		case fault == "" && (err != nil || string(out) != want):
			t.Errorf("%q: %q, %v", in, out, err)
		case fault != "" && (err == nil || !strings.Contains(err.Error(), fault)):
			t.Errorf("%q: %v", in, err)
		}
	}
	f("key: $(KEY_1)$(EMPTY)", "key: a$(KEY_2)", "") // a value is not expanded again
	f("${KEY_1} $KEY_1 $() $(KEY-1)", "${KEY_1} $KEY_1 $() $(KEY-1)", "")
	f("key: $(NOT_SET) $(NOR_THIS)", "", "bucket.yml: $(NOT_SET): the environment has no such variable")
}
