package main

import (
	"net"
	"sync"
)

// proxy is a TCP address in front of another. While it is dark it accepts connections, and passes nothing on.
type proxy struct {
	listener net.Listener
	target   string

	mu     sync.Mutex // guards what follows
	dark   bool
	light  chan struct{} // closed when it is not dark any more
	conns  map[net.Conn]bool
	closed bool
}

func newProxy(target string) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{listener: l, target: target, light: make(chan struct{}), conns: map[net.Conn]bool{}}
	close(p.light)
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(in)
		}
	}()
	return p, nil
}

func (p *proxy) address() string { return p.listener.Addr().String() }

// setDark makes the proxy dark, or ends that. What was sent meanwhile arrives late then, as after lost packets.
func (p *proxy) setDark(dark bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if dark == p.dark {
		return
	}
	p.dark = dark
	if dark {
		p.light = make(chan struct{})
	} else {
		close(p.light)
	}
}

func (p *proxy) close() {
	p.setDark(false)
	p.listener.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for c := range p.conns {
		c.Close()
	}
}

// keep has c closed with p, and reports whether p is open.
func (p *proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[c] = true
	return !p.closed
}

func (p *proxy) forget(c net.Conn) {
	c.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

func (p *proxy) wait() {
	p.mu.Lock()
	light := p.light
	p.mu.Unlock()
	<-light
}

func (p *proxy) serve(in net.Conn) {
	defer p.forget(in)
	if !p.keep(in) {
		return
	}
	p.wait()
	out, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer p.forget(out)
	if !p.keep(out) {
		return
	}
	go p.pass(in, out)
	p.pass(out, in)
}

// pass copies what src sends until one of the two is closed, and closes both.
func (p *proxy) pass(dst, src net.Conn) {
	defer dst.Close()
	defer src.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		p.wait()
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
