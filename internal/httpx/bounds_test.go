package httpx

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestPace(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }
	type step struct {
		at       float64 // seconds
		n        int     // bytes that come
		deadline float64 // from then on
	}
	f := func(window, end float64, bytes int64, steps ...step) {
		t.Helper()
		p := pace{window: time.Duration(window * float64(time.Second)), bytes: bytes}
		if end > 0 {
			p.end = at(end)
		}
		p.begin(start)
		for i, s := range steps {
			p.got(s.n, func() time.Time { return at(s.at) })
			if !p.deadline.Equal(at(s.deadline)) {
				t.Errorf("window %g, end %g, step %d: deadline %s, want %s", window, end, i, p.deadline.Sub(start),
					at(s.deadline).Sub(start))
			}
		}
	}
	f(10, 120, 100, step{1, 0, 10}, step{5, 99, 10}, step{6, 1, 16}, step{7, 99, 16}, step{15, 500, 25})
	f(10, 12, 100, step{1, 100, 11}, step{5, 100, 12}, step{6, 1000, 12}) // never beyond the end
	f(0, 12, 100, step{1, 100, 12})
	f(10, 0, 100, step{9, 100, 19}, step{18, 100, 28})
}

// A body that does not come is given up after a window, whether its handler reads it or not.
func TestBodiesThatDoNotCome(t *testing.T) {
	opts := testOptions()
	opts.BodyWindow = 100 * time.Millisecond
	bodies := make(chan error, 1)
	s := open(t, opts, func(s *Server) {
		handle(s, "POST /body", func(_ http.ResponseWriter, r *http.Request) {
			_, err := io.Copy(io.Discard, r.Body)
			bodies <- err
		})
		handle(s, "POST /unread", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })
	})
	for _, sent := range []string{"", "half"} {
		conn := dial(t, s.Addr())
		fmt.Fprintf(conn, "POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n%s", sent)
		if err := <-bodies; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("after %q: %v, want a deadline", sent, err)
		}
	}
	if n := testutil.ToFloat64(s.metrics.cutOff.WithLabelValues("body")); n != 2 {
		t.Errorf("%g bodies counted as cut off", n)
	}
	conn := dial(t, s.Addr()) // nobody reads this one
	fmt.Fprint(conn, "POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
	if _, err := io.ReadAll(conn); err != nil {
		t.Errorf("a body that no handler reads: the connection is not closed: %v", err)
	}
}

// A body that keeps the rate is read whole, however long that takes; the time is synthetic.
func TestSlowBodiesAreReadWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := testOptions()
		bodies := make(chan error, 1)
		conn, stop := serveOnPipe(opts, func(s *Server) {
			handle(s, "POST /body", func(_ http.ResponseWriter, r *http.Request) {
				_, err := io.Copy(io.Discard, r.Body)
				bodies <- err
			})
		})
		defer stop()
		const parts = 20
		begun := time.Now()
		part := strings.Repeat("x", int(opts.BodyRate)*5)
		fmt.Fprintf(conn, "POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", parts*len(part))
		for range parts {
			time.Sleep(4 * time.Second)
			fmt.Fprint(conn, part)
		}
		if err := <-bodies; err != nil {
			t.Errorf("a slow body that keeps the rate: %v after %s", err, time.Since(begun))
		}
	})
}

// serveOnPipe serves one connection without a network. stop ends it.
func serveOnPipe(opts Options, routes ...func(*Server)) (client net.Conn, stop func()) {
	s := New(quiet, nil, opts)
	for _, route := range routes {
		route(s)
	}
	client, server := net.Pipe()
	l := &oneConn{conns: make(chan net.Conn, 1), closed: make(chan struct{})}
	l.conns <- server
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.http.Serve(l)
	}()
	return client, func() {
		client.Close()
		_ = s.http.Close()
		<-done
		s.cut()
	}
}

// oneConn is a listener that has one connection.
type oneConn struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *oneConn) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	return conn
}

// A client that takes nothing of an answer is cut off, on HTTP/1.1 and on HTTP/2, whether the handler writes at once,
// in pieces with flushes, or ignores errors; its handler ends. A handler may work for longer than that between two
// writes.
func TestSilentReadersAreCutOff(t *testing.T) {
	ca := newAuthority(t)
	ca.issue(t, "server")
	for _, secure := range []bool{false, true} {
		opts := testOptions()
		opts.AnswerTimeout = 300 * time.Millisecond
		if secure {
			opts.TLS = TLSOptions{CertFile: ca.file("server.crt"), KeyFile: ca.file("server.key")}
		}
		ended := make(chan error, 1)
		s := open(t, opts, func(s *Server) {
			handle(s, "/whole", func(w http.ResponseWriter, _ *http.Request) {
				_, err := w.Write(make([]byte, 64<<20))
				ended <- err
			})
			handle(s, "/flushed", func(w http.ResponseWriter, r *http.Request) {
				var err error
				for range 1 << 20 {
					if _, err = w.Write(make([]byte, 1000)); err == nil {
						err = http.NewResponseController(w).Flush()
					}
					if err != nil {
						break
					}
				}
				ended <- err
			})
			handle(s, "/copied", func(w http.ResponseWriter, _ *http.Request) {
				_, err := io.CopyN(w, zeros{}, 64<<20)
				ended <- err
			})
			handle(s, "/thinks", func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprint(w, "begin ")
				w.(http.Flusher).Flush()
				select {
				case <-r.Context().Done():
				case <-time.After(3 * opts.AnswerTimeout):
				}
				fmt.Fprint(w, "end")
			})
		})
		scheme, client := "http", &http.Client{}
		if secure {
			scheme = "https"
			client.Transport = &http.Transport{TLSClientConfig: ca.client(), ForceAttemptHTTP2: true}
		}
		url := fmt.Sprintf("%s://%s", scheme, s.Addr())
		for _, path := range []string{"/whole", "/flushed", "/copied"} {
			resp, err := client.Get(url + path)
			if err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-ended:
				if err == nil {
					t.Errorf("%s %s: all was written to a client that took nothing", resp.Proto, path)
				}
			case <-time.After(20 * time.Second):
				t.Errorf("%s %s: the handler still waits for a client that takes nothing", resp.Proto, path)
			}
			resp.Body.Close()
		}
		for range 2 { // on one connection, where the first answer left a deadline
			resp, err := client.Get(url + "/thinks")
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if string(body) != "begin end" || err != nil {
				t.Errorf("%s: a handler that works between two writes: %q %v", resp.Proto, body, err)
			}
		}
		if !secure && testutil.ToFloat64(s.metrics.cutOff.WithLabelValues("answer")) == 0 {
			t.Error("nothing is counted as cut off")
		}
		client.CloseIdleConnections()
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// A client that takes an answer slowly, and does take it, gets all of it, however long that takes. One that takes a
// trickle, if only just often enough to look alive, does not, and its handler ends. The time is synthetic.
func TestSlowReadersGetAll(t *testing.T) {
	f := func(name string, size, part int, every time.Duration, whole bool, atLeast, atMost time.Duration) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) { slowRead(t, name, size, part, every, whole, atLeast, atMost) })
	}
	patience := testOptions().AnswerTimeout
	f("a poor link", 32<<20, 256<<10, time.Second, true, 2*patience, time.Hour)
	f("a link that stands still at times", 32<<20, 4<<20, patience/2, true, 2*patience, time.Hour)
	f("a trickle", 32<<20, 128<<10, patience*9/10, false, patience, 2*patience)
	f("bytes", 32<<20, 1<<10, time.Second/10, false, patience, 2*patience)
	f("stops when it has taken much fast", 64<<20, 32<<20, 100*patience, false, patience, 2*patience)
}

// slowRead reads an answer of size bytes, a part at a time, and a pause after each.
func slowRead(
	t *testing.T,
	name string,
	size, part int,
	every time.Duration,
	whole bool,
	atLeast, atMost time.Duration,
) {
	opts := testOptions()
	ended := make(chan time.Duration, 1)
	conn, stop := serveOnPipe(opts, func(s *Server) {
		handle(s, "/large", func(w http.ResponseWriter, _ *http.Request) {
			begun := time.Now()
			if _, err := w.Write(make([]byte, size)); (err == nil) != whole {
				t.Errorf("%s: the handler's write ended with %v", name, err)
			}
			ended <- time.Since(begun)
		})
	})
	defer stop()
	fmt.Fprint(conn, "GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	buf := make([]byte, part)
	for err == nil {
		var n int
		n, err = io.ReadFull(resp.Body, buf)
		total += n
		time.Sleep(every)
	}
	if took := <-ended; (total == size) != whole || took < atLeast || took > atMost {
		t.Errorf("%s: %d of %d bytes, and the handler ended after %s: %v", name, total, size, took, err)
	}
}

// The deadline of an answer does not outlive it: a later request on the connection, asked to go on, is.
func TestDeadlineEndsWithTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := testOptions()
		conn, stop := serveOnPipe(opts, func(s *Server) {
			handle(s, "POST /echo", func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
		})
		defer stop()
		r := bufio.NewReader(conn)
		for range 2 {
			fmt.Fprint(conn, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
			if line, err := r.ReadString('\n'); err != nil || !strings.Contains(line, "100") {
				t.Fatalf("%q %v", line, err)
			}
			_, _ = r.ReadString('\n')
			fmt.Fprint(conn, "ab")
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			if body, _ := io.ReadAll(resp.Body); !bytes.Equal(body, []byte("ab")) {
				t.Errorf("%q", body)
			}
			time.Sleep(2 * opts.AnswerTimeout)
		}
	})
}

func TestMayConnect(t *testing.T) {
	f := func(own, open, most int, want bool) {
		t.Helper()
		if got := mayConnect(own, open, most); got != want {
			t.Errorf("one more to %d, with %d of %d: %v, want %v", own, open, most, got, want)
		}
	}
	f(0, 0, 1, true)
	f(0, 1, 1, false)
	f(7, 7, 9, true)
	f(8, 8, 9, false) // the last place is for somebody else
	f(0, 8, 9, true)
	f(1000, 1000, 0, true)
}

// An address that opens connections without end leaves some for others, and ended ones count no more.
func TestConnectionsAreBounded(t *testing.T) {
	opts := testOptions()
	opts.MaxConnections = 9
	s := open(t, opts)
	var held []net.Conn
	for range 12 {
		c := dial(t, s.Addr())
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if _, err := http.ReadResponse(bufio.NewReader(c), nil); err == nil {
			held = append(held, c)
		}
	}
	if len(held) != 8 {
		t.Errorf("one address holds %d of 9 connections, want 8", len(held))
	}
	if n := testutil.ToFloat64(s.metrics.refused); n != 4 {
		t.Errorf("%g connections counted as refused", n)
	}
	for _, c := range held {
		c.Close()
	}
	deadline := time.Now().Add(10 * time.Second)
	for ; testutil.ToFloat64(s.metrics.conns) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("closed connections are still counted")
		}
	}
	if code, body := get(t, "http://"+s.Addr()+"/", nil); code != 200 {
		t.Errorf("afterwards: %d %s", code, body)
	}
}

// A header of very many lines, which take many times their size in memory, is not kept for as long as the request
// lasts.
func TestHeaderLines(t *testing.T) {
	s := open(t, testOptions())
	f := func(lines, want int) {
		t.Helper()
		conn := dial(t, s.Addr())
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n")
		for i := range lines {
			fmt.Fprintf(conn, "A%d: b\r\n", i)
		}
		fmt.Fprint(conn, "\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || resp.StatusCode != want {
			t.Errorf("%d lines: %v %v, want %d", lines, resp, err, want)
		}
	}
	f(maxHeaderLines, 200)
	f(maxHeaderLines+1, 431)
	f(20_000, 431)
}
