package gossip

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// unspecified reports whether host stands for all addresses of this machine.
func unspecified(host string) bool {
	if host == "" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsUnspecified()
}

// endpoint is where this process gossips.
type endpoint struct {
	bindIP   netip.Addr
	bindPort string
	// host is the name by which others know this machine; ip and port are where they connect.
	host string
	ip   netip.Addr
	port string
}

// locate finds the endpoint that bind and advertise ask for; advertise may be "". local holds this machine's
// addresses.
func locate(ctx context.Context, bind, advertise string, local []netip.Addr) (endpoint, error) {
	host, port, err := net.SplitHostPort(bind)
	if err != nil {
		return endpoint{}, err
	}
	e := endpoint{bindPort: port, port: port}
	if host == "" {
		e.bindIP = netip.IPv4Unspecified()
	} else if e.bindIP, err = lookup(ctx, host); err != nil {
		return endpoint{}, fmt.Errorf("gossip address: %w", err)
	}
	switch {
	case advertise != "":
		e.host = advertise
		if h, p, err := net.SplitHostPort(advertise); err == nil {
			e.host, e.port = h, p
		}
		if e.ip, err = lookup(ctx, e.host); err != nil {
			return endpoint{}, fmt.Errorf("gossip advertise address: %w", err)
		}
		return e, nil
	case e.bindIP.IsUnspecified():
		e.ip = pickIP(local, e.bindIP.Is4())
	default:
		e.ip = e.bindIP
	}
	e.host = e.ip.String()
	return e, nil
}

// isSelf reports whether ip:port is this process. local holds this machine's addresses.
func (e endpoint) isSelf(ip netip.Addr, port string, local []netip.Addr) bool {
	if ip == e.ip && port == e.port {
		return true
	}
	if port != e.bindPort {
		return false
	}
	return ip == e.bindIP || e.bindIP.IsUnspecified() && slices.Contains(local, ip)
}

// advertised is the address at which others call a service of this process that listens on addr.
func (e endpoint) advertised(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || !unspecified(host) {
		return addr
	}
	return net.JoinHostPort(e.host, port)
}

// pickIP chooses the address of this machine that others can most likely reach: a private one, else a public one,
// else loopback. Any IPv4 address comes before IPv6; with only4 no IPv6 address is chosen.
func pickIP(local []netip.Addr, only4 bool) netip.Addr {
	best, bestRank := netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0
	for _, ip := range local {
		if only4 && !ip.Is4() || !ip.IsGlobalUnicast() {
			continue
		}
		rank := 1
		if ip.IsPrivate() {
			rank += 2
		}
		if ip.Is4() {
			rank += 4
		}
		if rank > bestRank {
			best, bestRank = ip, rank
		}
	}
	return best
}

// localIPs returns the addresses of this machine's interfaces that are up.
func localIPs() []netip.Addr {
	var ips []netip.Addr
	ifaces, err := net.Interfaces()
	if err != nil {
		return nil
	}
	for _, i := range ifaces {
		if i.Flags&net.FlagUp == 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				ips = append(ips, p.Addr().Unmap())
			}
		}
	}
	return ips
}

// lookup is the first address of host, IPv4 before IPv6.
func lookup(ctx context.Context, host string) (netip.Addr, error) {
	ips, err := lookupAll(ctx, host)
	if err != nil {
		return netip.Addr{}, err
	}
	for _, ip := range ips {
		if ip.Is4() {
			return ip, nil
		}
	}
	return ips[0], nil
}

// lookupAll returns at least one address, or an error.
func lookupAll(ctx context.Context, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip.Unmap()}, nil
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	if len(ips) == 0 {
		return nil, fmt.Errorf("host %q has no address", host)
	}
	for i := range ips {
		ips[i] = ips[i].Unmap()
	}
	return ips, nil
}
