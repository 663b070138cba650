package httpx

import (
	"net"
	"sync"

	"github.com/hearth-metrics/hearth/internal/memory"
)

// boundedListener closes a new connection at once if there are too many, in all or of its address.
type boundedListener struct {
	net.Listener
	most    int
	metrics *metrics

	mu        sync.Mutex // guards what follows
	open      int
	byAddress map[string]int
}

func newBoundedListener(l net.Listener, most int, m *metrics) net.Listener {
	return &boundedListener{Listener: l, most: most, metrics: m, byAddress: map[string]int{}}
}

// addressRatio keeps one address from taking all connections. A single address, such as a proxy for all senders, can
// have 8/9 of them.
const addressRatio memory.FairRatio = 8

// mayConnect decides whether an address that has own of all open connections may have one more.
func mayConnect(own, open, most int) bool {
	return most <= 0 || addressRatio.DecideEntry(int64(own), int64(open), int64(most)) == memory.Granted
}

// Accept implements net.Listener.
func (l *boundedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := ClientNetwork(c.RemoteAddr().String())
		if l.take(from) {
			return &boundedConn{Conn: c, done: sync.OnceFunc(func() { l.release(from) })}, nil
		}
		l.metrics.refused.Inc()
		_ = c.Close()
	}
}

func (l *boundedListener) take(from string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !mayConnect(l.byAddress[from], l.open, l.most) {
		return false
	}
	l.open++
	l.byAddress[from]++
	l.metrics.conns.Set(float64(l.open))
	return true
}

func (l *boundedListener) release(from string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if l.byAddress[from]--; l.byAddress[from] == 0 {
		delete(l.byAddress, from)
	}
	l.metrics.conns.Set(float64(l.open))
}

type boundedConn struct {
	net.Conn
	done func()
}

// Close implements net.Conn.
func (c *boundedConn) Close() error {
	defer c.done()
	return c.Conn.Close()
}
