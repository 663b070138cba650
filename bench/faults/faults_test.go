package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The whole program, small: the member that is stopped comes back and no request fails.
func TestRun(t *testing.T) {
	hearth := filepath.Join(t.TempDir(), "hearth")
	if out, err := exec.Command("go", "build", "-o", hearth, "../../cmd/hearth").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var out, log strings.Builder
	args := []string{"-hearth", hearth, "-only", "stopped|dark|heavy", "-series", "400", "-per-request", "50", "-interval",
		"400ms", "-calm", "1s", "-lasts", "1500ms"}
	if err := run(context.Background(), args, &out, &log); err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	for _, name := range []string{"| stopped |", "| dark |", "| heavy reads |"} {
		row := out.String()[max(0, strings.Index(out.String(), name)):]
		row, _, _ = strings.Cut(row, "\n")
		if !strings.HasPrefix(row, name) || !strings.Contains(row, "| **0** of ") || strings.Contains(row, "never") {
			t.Errorf("%s\n%s", out.String(), log.String())
		}
	}
}

func TestWindow(t *testing.T) {
	start := time.Unix(1000, 0)
	l := &load{}
	for i := range 200 {
		s := sent{due: start.Add(time.Duration(i) * time.Second), took: time.Duration(i) * time.Millisecond}
		if i == 120 {
			s.failed = "no"
		}
		l.all = append(l.all, s)
	}
	w := l.window(start.Add(100*time.Second), start.Add(200*time.Second))
	if w.requests != 100 || w.failed != 1 || w.problem != "no" || w.p50 != 150*time.Millisecond ||
		w.p99 != 199*time.Millisecond {
		t.Errorf("%+v", w)
	}
	if w := l.window(start.Add(time.Hour), start.Add(2*time.Hour)); w != (window{}) {
		t.Errorf("%+v of nothing", w)
	}
}

func TestShare(t *testing.T) {
	points := []point{{stored: [members]float64{10, 20, 30}}, {stored: [members]float64{10, 20, 30}},
		{stored: [members]float64{110, 70, 130}}}
	if got := share(points, 1); got != 0.5 {
		t.Errorf("%v, want half of the others' 100", got)
	}
	if got := share(points[:2], 1); got != 0 {
		t.Errorf("%v where nobody stored anything", got)
	}
	if got := share(nil, 1); got != 0 {
		t.Errorf("%v of nothing", got)
	}
}

func TestProxy(t *testing.T) {
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c) }()
		}
	}()
	p, err := newProxy(echo.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	c, err := net.Dial("tcp", p.address())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	say := func(text string) {
		t.Helper()
		if _, err := c.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	hear := func(n int) ([]byte, error) {
		b := make([]byte, n)
		_, err := io.ReadFull(c, b)
		return b, err
	}
	say("one")
	if b, err := hear(3); err != nil || !bytes.Equal(b, []byte("one")) {
		t.Fatalf("%q %v", b, err)
	}
	p.setDark(true)
	say("two")
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if b, err := hear(1); err == nil {
		t.Fatalf("%q came through the dark", b)
	}
	p.setDark(false)
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if b, err := hear(3); err != nil || !bytes.Equal(b, []byte("two")) {
		t.Fatalf("%q %v", b, err)
	}
}
