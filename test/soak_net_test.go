package test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// network is what the processes of a soak talk over; the test itself reaches them past it.
type network interface {
	// node makes the addresses of a process and the arguments that say them.
	node(name, role string) *node
	// boot starts the process.
	boot(n *node)
	// cut drops all that from sends to to, from now on. What is sent is lost or late, never refused.
	cut(from, to string)
	// heal ends all cuts.
	heal()
}

// proxies is a network of TCP proxies within the test: a process listens on 127.0.0.1 and tells the others an address
// of
// 127.0.2.0/24, where a proxy looks who connects before it passes anything on.
type proxies struct {
	t *testing.T

	mu   sync.Mutex // guards what follows
	pids map[string]int
	cuts map[[2]string]bool
	wake chan struct{} // closed when the cuts change
}

func newProxies(t *testing.T) *proxies {
	return &proxies{t: t, pids: map[string]int{}, cuts: map[[2]string]bool{}, wake: make(chan struct{})}
}

func (p *proxies) node(name, role string) *node {
	n := newNode(p.t, name, role)
	grpc, gossip := p.listen(name, n.grpc), p.listen(name, n.gossipAddr)
	n.args = append(n.args, "--grpc-advertise-address="+grpc, "--gossip.advertise-address="+gossip)
	n.gossipAddr = gossip
	return n
}

func (p *proxies) boot(n *node) {
	n.start()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pids[n.name] = n.cmd.Process.Pid
}

func (p *proxies) cut(from, to string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cuts[[2]string{from, to}] = true
	p.changed()
}

func (p *proxies) heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.cuts)
	p.changed()
}

func (p *proxies) changed() {
	close(p.wake)
	p.wake = make(chan struct{})
}

// listen opens a proxy for target, which belongs to owner.
func (p *proxies) listen(owner, target string) string {
	_, port, _ := net.SplitHostPort(target)
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.2.1", port))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(owner, target, c.(*net.TCPConn))
		}
	}()
	return l.Addr().String()
}

// link is one connection through a proxy.
type link struct {
	p     *proxies
	owner string // who listens
	in    *net.TCPConn
	who   func() string // who connected; "" when it is gone or not ours
}

func (p *proxies) serve(owner, target string, in *net.TCPConn) {
	defer in.Close()
	l := &link{p: p, owner: owner, in: in}
	l.who = sync.OnceValue(func() string { return p.dialer(in) })
	l.pass(true) // a connection takes packets in both directions
	l.pass(false)
	c, err := net.DialTimeout("tcp", target, 5*time.Second)
	if err != nil {
		return
	}
	out := c.(*net.TCPConn)
	defer out.Close()
	var wg sync.WaitGroup
	wg.Go(func() { l.copy(out, in, true) })
	wg.Go(func() { l.copy(in, out, false) })
	wg.Wait()
}

// copy passes on what src sends, late where there is a cut. inward is the direction to who listens.
func (l *link) copy(dst, src *net.TCPConn, inward bool) {
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		l.pass(inward)
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				src.Close()
				return
			}
		}
		switch {
		case err == io.EOF:
			_ = dst.CloseWrite() // the other side may be gone
			return
		case err != nil:
			dst.Close()
			return
		}
	}
}

// pass waits until nothing cuts this direction.
func (l *link) pass(inward bool) {
	for {
		l.p.mu.Lock()
		idle, wake := len(l.p.cuts) == 0, l.p.wake
		l.p.mu.Unlock()
		if idle {
			return
		}
		from, to := l.who(), l.owner
		if !inward {
			from, to = to, from
		}
		l.p.mu.Lock()
		cut := l.p.cuts[[2]string{from, to}]
		l.p.mu.Unlock()
		if !cut {
			return
		}
		select {
		case <-wake:
		case <-l.p.t.Context().Done():
			return
		}
	}
}

// dialer finds the process at the other end of an accepted connection.
func (p *proxies) dialer(in *net.TCPConn) string {
	inode := socketInode(in.RemoteAddr().(*net.TCPAddr), in.LocalAddr().(*net.TCPAddr))
	if inode == "" {
		return ""
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, pid := range p.pids {
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, fd := range fds {
			if to, _ := os.Readlink(fd); to == "socket:["+inode+"]" {
				return name
			}
		}
	}
	return ""
}

// socketInode is the inode of the socket of this machine that is connected from local to remote, "" for none.
func socketInode(local, remote *net.TCPAddr) string {
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return ""
	}
	hex := func(a *net.TCPAddr) string {
		ip := a.IP.To4()
		return fmt.Sprintf("%02X%02X%02X%02X:%04X", ip[3], ip[2], ip[1], ip[0], a.Port)
	}
	_, row, found := bytes.Cut(table, []byte(": "+hex(local)+" "+hex(remote)+" "))
	if !found {
		return ""
	}
	row, _, _ = bytes.Cut(row, []byte("\n"))
	if f := strings.Fields(string(row)); len(f) > 6 && f[6] != "0" {
		return f[6]
	}
	return ""
}

// namespaces is a network of one network namespace per process, joined by a bridge. A cut gives the sender a wrong
// hardware address for the receiver: packets go where nobody takes them, without a word. It takes root.
type namespaces struct {
	t      *testing.T
	bridge string
	subnet string // three numbers with dots
	ips    map[string]string
	cuts   [][2]string
}

func newNamespaces(t *testing.T) *namespaces {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("the long soak makes network namespaces: run it as root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Fatalf("the long soak makes network namespaces: %v", err)
	}
	n := &namespaces{t: t, bridge: fmt.Sprintf("hs%d", os.Getpid()),
		subnet: fmt.Sprintf("10.213.%d", os.Getpid()%250), ips: map[string]string{}}
	n.sweep()
	n.ip("link", "add", n.bridge, "type", "bridge")
	t.Cleanup(func() { n.ip("link", "del", n.bridge) })
	n.ip("addr", "add", n.subnet+".254/24", "dev", n.bridge)
	n.ip("link", "set", n.bridge, "up")
	return n
}

// ip runs the program of that name.
func (n *namespaces) ip(args ...string) {
	n.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		n.t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// sweep removes what runs left that were interrupted: theirs are the names with the number of a process that is gone.
func (n *namespaces) sweep() {
	n.t.Helper()
	name := regexp.MustCompile(`\bhs(\d+)(-\w+)?`)
	for kind, list := range map[string][]string{"netns": {"netns", "list"}, "link": {"-o", "link", "show", "type", "bridge"}} {
		out, err := exec.Command("ip", list...).Output()
		if err != nil {
			n.t.Fatalf("ip %s: %v", strings.Join(list, " "), err)
		}
		for _, m := range name.FindAllStringSubmatch(string(out), -1) {
			if _, err := os.Stat("/proc/" + m[1]); err != nil && (m[2] != "") == (kind == "netns") {
				n.ip(kind, "del", m[0])
			}
		}
	}
}

// host is the address at which processes reach the test's own network.
func (n *namespaces) host() string { return n.subnet + ".254" }

func (n *namespaces) space(name string) string { return n.bridge + "-" + name }

func (n *namespaces) node(name, role string) *node {
	number := strconv.Itoa(len(n.ips) + 1)
	ip, ns, port := n.subnet+"."+number, n.space(name), n.bridge+"p"+number
	n.ips[name] = ip
	n.ip("netns", "add", ns)
	n.t.Cleanup(func() { n.ip("netns", "del", ns) })
	n.ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", ns)
	n.ip("link", "set", port, "master", n.bridge, "up")
	n.ip("-n", ns, "addr", "add", ip+"/24", "dev", "eth0")
	n.ip("-n", ns, "link", "set", "lo", "up")
	n.ip("-n", ns, "link", "set", "eth0", "up")
	made := newNode(n.t, name, role)
	for i, a := range made.args {
		made.args[i] = strings.Replace(a, "=127.0.0.1:", "="+ip+":", 1)
	}
	for _, a := range []*string{&made.http, &made.grpc, &made.write, &made.gossipAddr} {
		*a = strings.Replace(*a, "127.0.0.1", ip, 1)
	}
	return made
}

func (n *namespaces) boot(m *node) {
	m.process = start(
		n.t,
		m.name,
		"ip",
		nil,
		append([]string{"netns", "exec", n.space(m.name), hearthBinary}, m.args...)...)
}

func (n *namespaces) cut(from, to string) {
	n.t.Helper()
	n.ip("-n", n.space(from), "neigh", "replace", n.ips[to], "lladdr", "02:00:00:00:ff:ff", "nud", "permanent", "dev",
		"eth0")
	n.cuts = append(n.cuts, [2]string{from, to})
}

func (n *namespaces) heal() {
	n.t.Helper()
	for _, c := range n.cuts {
		n.ip("-n", n.space(c[0]), "neigh", "del", n.ips[c[1]], "dev", "eth0")
	}
	n.cuts = nil
}
