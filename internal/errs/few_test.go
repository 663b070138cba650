package errs

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestFew(t *testing.T) {
	f := func(n int, lines int, last string) {
		t.Helper()
		all := []error{nil}
		for i := range n {
			all = append(all, nil, WithRetryAfter(E(Unavailable, "tenant %d", i), time.Minute))
		}
		err := Few(all)
		if n == 0 {
			if err != nil {
				t.Fatal(err)
			}
			return
		}
		got := strings.Split(err.Error(), "\n")
		if len(got) != lines || got[len(got)-1] != last || KindOf(err) != Unavailable || !errors.Is(err, all[2]) {
			t.Errorf("%d errors: %v", n, err)
		}
	}
	f(0, 0, "")
	f(1, 1, "tenant 0")
	f(5, 5, "tenant 4")
	f(50_000, 6, "and 49995 more")
	if err := Few([]error{fmt.Errorf("plain")}); KindOf(err) != Internal {
		t.Errorf("kind %v", KindOf(err))
	}
}
