package rpc

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"time"

	"github.com/hearth-metrics/hearth/internal/httpx"
	"github.com/hearth-metrics/hearth/internal/series"
	"github.com/hearth-metrics/hearth/internal/tenant"
)

// ServerOptions configure a Server. DefaultServerOptions returns values that suit every role.
type ServerOptions struct {
	// Address is the host:port to bind; port 0 picks a free one (see Server.Addr).
	Address string
	// TLS secures the port; the zero value = plaintext. Files are read again for each connection.
	TLS httpx.TLSOptions
	// GracePeriod is how long Close waits for calls under way before it cuts them off.
	GracePeriod time.Duration
	// MaxConnectionAge is the age at which the server asks a connection to end, so that clients spread over new addresses;
	// 0 = never. It does not cut off calls under way.
	MaxConnectionAge time.Duration
	// KeepaliveMinTime is the shortest time between two pings of a client.
	KeepaliveMinTime time.Duration
	// MaxMessageBytes bounds one received message, in bytes. A message takes at least its size in memory while it is
	// decoded.
	MaxMessageBytes int
	// WriteBytes bounds the memory of all shards in work on write streams, in bytes. Beyond it the server does not
	// read the streams, and flow control stops the senders. RemoteWrite calls have a budget of the same size for
	// themselves.
	WriteBytes int64
	// NameBytes bounds the memory of the series that write streams may call by number, in bytes. Beyond it the server asks
	// senders to send labels with each sample, which costs both sides several times the CPU.
	NameBytes int64
	// SendTimeout bounds how long a peer may read nothing. It also bounds how far a peer may fall behind a rate of 512
	// KiB in that time. Beyond either the server ends the call.
	SendTimeout time.Duration
	// MaxStreams bounds the calls of one connection that run at the same time. Further calls wait at the client.
	MaxStreams uint32
	// Observer follows the calls; nil = no observer.
	Observer ServerObserver
}

// DefaultServerOptions returns options for plaintext on Thanos's port, with Thanos's connection age.
func DefaultServerOptions() ServerOptions {
	return ServerOptions{
		Address:          "0.0.0.0:10901",
		GracePeriod:      2 * time.Minute,
		MaxConnectionAge: time.Hour,
		KeepaliveMinTime: 5 * time.Second,
		MaxMessageBytes:  maxMessage,
		WriteBytes:       256 << 20,
		NameBytes:        4 << 30,
		SendTimeout:      30 * time.Second,
		MaxStreams:       1000,
	}
}

// Sizes of writes to another process, in bytes.
const (
	// maxShard is the largest shard that a client sends. It refuses larger ones.
	maxShard = 256 << 20
	// maxPart is the size from which on a client sends a shard in parts. A receiver holds a frame in memory before it can
	// reserve memory for it, so frames must be small.
	maxPart = 16 << 20
	// maxFrame is the largest part. A client does not divide a series. It refuses a larger one, which would break the
	// stream that other writes use.
	maxFrame = 32 << 20
	// maxMessage is the largest message that a server receives: a frame, or a request that a Thanos receiver passes on.
	maxMessage = 64 << 20
)

// Validate reports every fault in o.
func (o ServerOptions) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if _, _, err := net.SplitHostPort(o.Address); err != nil {
		fault("gRPC address %q: must be host:port", o.Address)
	}
	for name, d := range map[string]time.Duration{
		"grace period": o.GracePeriod, "max connection age": o.MaxConnectionAge, "keepalive min time": o.KeepaliveMinTime,
	} {
		if d < 0 {
			fault("gRPC %s %s: must not be negative", name, d)
		}
	}
	if o.MaxMessageBytes < 1 || o.MaxMessageBytes > math.MaxInt32 {
		fault("gRPC max message bytes %d: must be between 1 and %d", o.MaxMessageBytes, math.MaxInt32)
	}
	if o.SendTimeout <= 0 {
		fault("gRPC send timeout %s: must be positive", o.SendTimeout)
	}
	if o.WriteBytes < 1 {
		fault("gRPC write bytes %d: must be at least 1", o.WriteBytes)
	}
	if o.NameBytes < 1 {
		fault("gRPC name bytes %d: must be at least 1", o.NameBytes)
	}
	if o.MaxStreams < 1 {
		fault("gRPC max streams %d: must be at least 1", o.MaxStreams)
	}
	return errors.Join(append(faults, o.TLS.Validate())...)
}

// ClientTLS is how a client secures its connections. Files are read again for each connection.
type ClientTLS struct {
	// Enabled turns TLS on; the other fields need it.
	Enabled bool
	// CAFile is a PEM file that must have signed the server's certificate; "" = the system's.
	CAFile string
	// CertFile and KeyFile are the client's own PEM files; both or neither.
	CertFile, KeyFile string
	// ServerName is the name the server's certificate must have; "" = the host dialed.
	ServerName string
	// SkipVerify accepts any certificate.
	SkipVerify bool
	// MinVersion is "1.0" to "1.3"; "" = "1.3".
	MinVersion string
}

// ClientOptions configure a Client. The zero values of fields stand for those of DefaultClientOptions where 0 is no
// value.
type ClientOptions struct {
	// TLS secures the connection; the zero value = plaintext.
	TLS ClientTLS
	// Role selects which source of a Hearth process responds: receive, store, ...; "" = all its sources.
	Role string
	// Instance is the id of the process that dials, for the peer's logs.
	Instance string
	// TenantLabel and ReplicaLabel are the external labels that name tenant and ring replica in Thanos stores. The client
	// removes them from the series.
	TenantLabel, ReplicaLabel string
	// SidecarTenant is whose the series are if the peer is a Thanos sidecar; "" = the default tenant's.
	SidecarTenant tenant.ID
	// SortBudget bounds the memory for sorting the series of a Thanos store that cannot sort them without replica
	// labels, in bytes; 0 = no bound.
	SortBudget int64
	// BatchSize is how many series the peer may send in one frame.
	BatchSize int
	// Compression of requests: "" = none, or "snappy". Peers compress their responses in the same way.
	Compression string
	// ServiceConfig is a gRPC service config as JSON; "" = none.
	ServiceConfig string
	// StreamAge is the age at which a new write stream replaces the current one. An endless stream would keep its
	// connection beyond the age that the server wants.
	StreamAge time.Duration
	// Observer ties calls to the requests that they belong to; nil = no observer.
	Observer ClientObserver
	// Log receives panics, each of which costs one call; nil = they are not logged.
	Log *slog.Logger
}

// DefaultClientOptions returns options for plaintext, with Thanos's label names.
func DefaultClientOptions() ClientOptions {
	return ClientOptions{
		TenantLabel:  "tenant_id",
		ReplicaLabel: "receive_replica",
		SortBudget:   series.SortBudget,
		BatchSize:    256,
		StreamAge:    30 * time.Minute,
	}
}

// Validate reports every fault in o.
func (o ClientOptions) Validate() error {
	var faults []error
	if (o.TLS.CertFile == "") != (o.TLS.KeyFile == "") {
		faults = append(faults, errors.New("client TLS needs both a certificate and a key file"))
	}
	if !o.TLS.Enabled && (o.TLS.CertFile != "" || o.TLS.CAFile != "" || o.TLS.SkipVerify || o.TLS.ServerName != "") {
		faults = append(faults, errors.New("client TLS files or names are set, but TLS is not enabled"))
	}
	if _, err := httpx.TLSVersion(o.TLS.MinVersion); err != nil {
		faults = append(faults, fmt.Errorf("client %w", err))
	}
	if o.Compression != "" && o.Compression != "snappy" {
		faults = append(faults, fmt.Errorf("client compression %q: must be snappy or empty", o.Compression))
	}
	if o.ServiceConfig != "" && !json.Valid([]byte(o.ServiceConfig)) {
		faults = append(faults, errors.New("gRPC service config: is not JSON"))
	}
	if o.SortBudget < 0 || o.BatchSize < 0 || o.StreamAge < 0 {
		faults = append(faults, errors.New("sort budget, batch size and stream age must not be negative"))
	}
	return errors.Join(faults...)
}

// withDefaults replaces zero values by those of DefaultClientOptions, except where 0 means no bound.
func (o ClientOptions) withDefaults() ClientOptions {
	d := DefaultClientOptions()
	if o.TenantLabel == "" {
		o.TenantLabel = d.TenantLabel
	}
	if o.ReplicaLabel == "" {
		o.ReplicaLabel = d.ReplicaLabel
	}
	if o.BatchSize == 0 {
		o.BatchSize = d.BatchSize
	}
	if o.StreamAge == 0 {
		o.StreamAge = d.StreamAge
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}
