package gossip

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/grafana/dskit/kv/codec"

	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
	"github.com/hearth-metrics/hearth/ring"
)

// The roles that have a ring. They are also the keys of their rings in the gossiped store.
const (
	RoleReceive     = series.RoleReceive
	RoleStore       = series.RoleStore
	RoleCompact     = series.RoleCompact
	RoleRule        = series.RoleRule
	RoleDistributor = series.RoleDistributor
)

// roles are all rings, in the order in which pages show them.
var roles = []string{RoleReceive, RoleStore, RoleCompact, RoleRule, RoleDistributor}

// defaultPort is where members gossip when an address names no port.
const defaultPort = "7946"

// Options configure a Gossip. Start from DefaultOptions.
type Options struct {
	// BindAddress is the host:port to gossip on, by TCP only. Port 0 takes a free port and needs an IP as host.
	BindAddress string
	// AdvertiseAddress is the host or host:port at which others reach this process. "" takes the bound IP, else a
	// private IP of this machine, else any of its IPs, else loopback, which suits a cluster within one machine. Without
	// a port it has the port of BindAddress.
	AdvertiseAddress string
	// Join are members to join: host:port, or dns+host:port, dnssrv+name, dnssrvnoa+name. All are tried at Open and then
	// every RejoinInterval, so that a split cluster becomes one again. Empty starts a cluster that others can join.
	Join []string
	// JoinTimeout is how long readiness waits for the first other member if Join names one. After that this process
	// serves alone and goes on trying.
	JoinTimeout time.Duration
	// RejoinInterval is the time between attempts to reach all of Join again.
	RejoinInterval time.Duration
	// ClusterLabel separates clusters whose members can reach each other: messages with another label are dropped.
	ClusterLabel string

	// Instance is who this process is; see LoadInstance. Its tokens matter for role receive only.
	Instance Instance
	// Roles are the rings that this process registers in. A process without roles only watches: it is not a member.
	Roles []string
	// Zone is the failure domain of this process, "" for none. Replicas go to distinct zones if there are enough zones.
	Zone string
	// GRPCAddress and HTTPAddress are the host:port at which others call this process. An empty or unspecified host
	// (0.0.0.0) stands for the host that is advertised.
	GRPCAddress, HTTPAddress string

	// ReplicationFactor is the number of copies of each series. All processes that set it must set the same. 0, for a
	// process that stores nothing, takes that of the cluster.
	ReplicationFactor int
	// BucketID returns the identity of the object store this process uses, "" for none. nil = it uses no object store.
	// Receivers, store gateways and compactors must all name the same one or none. A process of another role that names
	// one must name the same. known is false while the object store has not said it. A store gateway may start before
	// others give the bucket its identity: known says then that there is none, by a look that is less than a minute old.
	// It must answer from memory: every heartbeat calls it.
	BucketID func() (id string, known bool)

	// Contents says what a store gateway found in a bucket without an id: text of at most 300 bytes, by which others know
	// the bucket. nil = nothing. It must answer from memory: every heartbeat calls it.
	Contents func() string

	// HeartbeatPeriod is the time between heartbeats. A heartbeat is a time in whole seconds.
	HeartbeatPeriod time.Duration
	// HeartbeatTimeout is for how long a member may send no heartbeat before it is Down.
	HeartbeatTimeout time.Duration
	// ForgetAfter is for how long this process must have waited for a member's next heartbeat before it takes the member
	// off the ring. The member's series then move to others.
	ForgetAfter time.Duration
	// HistoryRetention is for how long a closed incarnation is remembered. It must be at least as long as receivers keep
	// data, or queries would miss warnings.
	HistoryRetention time.Duration

	// Sharding, if set, spreads each tenant's series over some of the receivers only. Processes that place series must
	// have the same sizes, except while the sizes are changed. Processes that read see by it which receivers hold
	// nothing of a tenant.
	Sharding ring.Sharding
	// Quarantined, if set, returns the tenants whose data this process cannot use now. It must answer from memory: every
	// heartbeat calls it.
	Quarantined func() []Quarantine
	// RefuseForget makes the HTTP handlers refuse to forget members.
	RefuseForget bool
	// TLS is that of the connections between members.
	TLS TLSOptions

	// Codecs are the codecs of further gossiped values, which are used through Client.
	Codecs []codec.Codec
	// Now is the wall clock, nil for time.Now. It may be wrong and may be set: its times are shown and order entries.
	// How long ago something happened is measured by uptime.
	Now func() time.Time
	// uptime is the time since a fixed moment, by a clock that nobody sets. nil = since New. Only tests set it.
	uptime func() time.Duration
}

// maxRF is the largest replication factor.
const maxRF = 64

// Quarantine is a tenant whose data a process cannot use.
type Quarantine struct {
	Tenant tenant.ID `json:"tenant"`
	Reason string    `json:"reason"`
}

// TLSOptions encrypt gossip. Messages cannot be read or changed on the way, and a member checks the certificate of
// the member that it calls. It does not check who calls it. Files are PEM.
type TLSOptions struct {
	// Enabled turns TLS on, for all members.
	Enabled bool
	// CertFile and KeyFile are this member's certificate and key. Both are needed. They are read at Open.
	CertFile, KeyFile string
	// CAFile holds the authorities that sign the others' certificates; "" = the system's authorities.
	CAFile string
	// ServerName is the name that the others' certificates must have; "" = their IP address.
	ServerName string
	// SkipVerify accepts any certificate.
	SkipVerify bool
}

func (o TLSOptions) validate() error {
	if !o.Enabled {
		if o != (TLSOptions{}) {
			return errors.New("gossip TLS: files or names are set, but TLS is not enabled")
		}
		return nil
	}
	if o.CertFile == "" || o.KeyFile == "" {
		return errors.New("gossip TLS: a certificate and its key are needed")
	}
	return nil
}

// DefaultOptions returns options for a cluster of up to some hundred members. The caller sets Instance, Roles and
// addresses.
func DefaultOptions() Options {
	return Options{
		BindAddress:       "0.0.0.0:" + defaultPort,
		JoinTimeout:       10 * time.Second,
		RejoinInterval:    10 * time.Second,
		ClusterLabel:      "hearth",
		ReplicationFactor: 1,
		HeartbeatPeriod:   2 * time.Second,
		HeartbeatTimeout:  8 * time.Second,
		ForgetAfter:       15 * time.Minute,
		HistoryRetention:  15 * 24 * time.Hour,
	}
}

// Validate returns all faults of o as one error, nil for none.
func (o Options) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }

	faults = append(faults, o.validateAddresses()...)
	if err := o.TLS.validate(); err != nil {
		faults = append(faults, err)
	}
	if err := o.Instance.validate(); err != nil {
		faults = append(faults, err)
	}
	for i, r := range o.Roles {
		if !slices.Contains(roles, r) {
			fault("role %q: want one of %q", r, roles)
		}
		if slices.Contains(o.Roles[:i], r) {
			fault("role %q is named twice", r)
		}
	}
	if !validText(o.Zone, maxZone) {
		fault("zone %.200q: want plain text of at most %d bytes", o.Zone, maxZone)
	}
	if id, _ := o.bucket(); !validText(id, maxText) {
		fault("bucket %.400q: want plain text of at most %d bytes", id, maxText)
	}
	if o.ReplicationFactor < 0 || o.ReplicationFactor == 0 && slices.Contains(o.Roles, RoleReceive) {
		fault("replication factor %d: must be at least 1", o.ReplicationFactor)
	}
	if o.ReplicationFactor > maxRF {
		fault("replication factor %d: must be at most %d", o.ReplicationFactor, maxRF)
	}
	for _, d := range []struct {
		name string
		is   time.Duration
	}{
		{"join timeout", o.JoinTimeout}, {"rejoin interval", o.RejoinInterval},
		{"heartbeat period", o.HeartbeatPeriod}, {"history retention", o.HistoryRetention},
	} {
		if d.is <= 0 {
			fault("%s %s: must be positive", d.name, d.is)
		}
	}
	if o.HeartbeatTimeout < max(2*time.Second, 2*o.HeartbeatPeriod) {
		fault("heartbeat timeout %s: must be at least 2s and two heartbeat periods", o.HeartbeatTimeout)
	}
	if o.ForgetAfter <= o.HeartbeatTimeout {
		fault("forget after %s: must be above the heartbeat timeout, %s", o.ForgetAfter, o.HeartbeatTimeout)
	}
	return errors.Join(faults...)
}

// bucket is what BucketID says.
func (o Options) bucket() (id string, known bool) {
	if o.BucketID == nil {
		return "", true
	}
	return o.BucketID()
}

func (o Options) validateAddresses() []error {
	var faults []error
	check := func(name, addr string) {
		if _, port, err := net.SplitHostPort(addr); err != nil {
			faults = append(faults, fmt.Errorf("%s address %q: want host:port", name, addr))
		} else if !validPort(port) {
			faults = append(faults, fmt.Errorf("%s address %q: the port must be a number from 0 to 65535", name, addr))
		}
	}
	check("gossip", o.BindAddress)
	if host, port, err := net.SplitHostPort(o.BindAddress); err == nil && port == "0" &&
		(unspecified(host) || o.AdvertiseAddress != "") {
		faults = append(faults, fmt.Errorf("gossip address %q: port 0 needs an IP as host and no advertise address",
			o.BindAddress))
	}
	if o.GRPCAddress != "" || len(o.Roles) > 0 {
		check("gRPC", o.GRPCAddress)
	}
	if o.HTTPAddress != "" {
		check("HTTP", o.HTTPAddress)
	}
	for _, j := range o.Join {
		if err := ValidJoin(j); err != nil {
			faults = append(faults, err)
		}
	}
	return faults
}

func validPort(port string) bool {
	_, err := strconv.ParseUint(port, 10, 16)
	return err == nil
}

// ValidJoin returns an error for a member to join (see Options.Join) that cannot be meant, nil for a good one.
// dns+name needs a port; the address of one member may leave it out.
func ValidJoin(j string) error {
	kind, rest, dynamic := strings.Cut(j, "+")
	if !dynamic {
		kind, rest = "", j
	}
	if kind == "dnssrv" || kind == "dnssrvnoa" { // the DNS record has the port
		if rest == "" || strings.Contains(rest, ":") {
			return fmt.Errorf("member to join %q: want %s+name, whose record has the port", j, kind)
		}
		return nil
	}
	host, port, err := net.SplitHostPort(rest)
	switch {
	case kind != "" && kind != "dns":
		return fmt.Errorf("member to join %q: want host:port, dns+name:port or dnssrv+name", j)
	case kind == "dns" && (err != nil || host == "" || !validPort(port)):
		return fmt.Errorf("member to join %q: want dns+name:port, such as dns+%s:%s", j, orName(host, rest), defaultPort)
	case err == nil && (host == "" || !validPort(port)), err != nil && (rest == "" || strings.Count(rest, ":") == 1):
		return fmt.Errorf("member to join %q: want host:port, such as %s:%s", j, orName(host, rest), defaultPort)
	}
	return nil
}

// orName is the host to show in an example of an address: host, else the name in rest, else a made-up one.
func orName(host, rest string) string {
	if host == "" {
		host, _, _ = strings.Cut(rest, ":")
	}
	if host == "" {
		return "hearth-0"
	}
	return host
}
