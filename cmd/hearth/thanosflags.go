package main

import (
	"strings"

	"github.com/alecthomas/kingpin/v2"

	"github.com/hearth-metrics/hearth/internal/secret"
)

// idleFlag is a flag of Thanos that is accepted and does nothing here.
type idleFlag struct {
	name   string
	kind   idleKind
	reason string // why it does nothing, and what to use instead
}

// idleKind is what a flag's value looks like.
type idleKind uint8

const (
	idleText   idleKind = iota // any value
	idleBool                   // none: --name and --no-name
	idleSecret                 // text that may hold a secret
)

const (
	noSpans   = "spans are not written yet"
	noLog     = "requests are counted (metrics hearth_http_* and grpc_server_*), not logged"
	noCache   = "there is no such cache"
	shipsOn   = "a block that cannot be shipped never holds up the others"
	capnproto = "Cap'n Proto is not spoken: Hearth processes write to each other in a protocol of their own, and to and from Thanos by gRPC " +
		"(Thanos routers in the same ring need --receive.replication-protocol=protobuf)"
)

// commonIdle are those of every role.
var commonIdle = []idleFlag{
	{"tracing.config", idleSecret, noSpans},
	{"tracing.config-file", idleText, noSpans},
	{"request.logging-config", idleSecret, noLog},
	{"request.logging-config-file", idleText, noLog},
}

// receiveIdle are those of thanos receive.
var receiveIdle = []idleFlag{
	{"receive.replication-protocol", idleText, capnproto},
	{"receive.capnproto-address", idleText, capnproto},
	{"receive.artificial-max-delay", idleText, "it is an aid for testing Thanos"},
	{"receive.lazy-retrieval-max-buffered-responses", idleText, "series are merged while they are read, a bounded number at a time"},
	{"tsdb.allow-overlapping-blocks", idleBool, "overlapping blocks are always allowed"},
	{"tsdb.enable-native-histograms", idleBool, "native histograms are always taken"},
	{"tsdb.memory-snapshot-on-shutdown", idleBool, "a snapshot is always written on a stop"},
	{"tsdb.write-queue-size", idleText, "full chunks are written by a scheduler, without a queue"},
	{"tsdb.head.expanded-postings-cache-size", idleText, noCache},
	{"tsdb.block.expanded-postings-cache-size", idleText, noCache},
	{"shipper.allow-out-of-order-uploads", idleBool, shipsOn},
	{"shipper.skip-corrupted-blocks", idleBool, shipsOn},
	{"matcher-cache-size", idleText, "matchers are a small part of a call here, and not cached"},
	{"enable-feature", idleText, "what it turns on in Thanos is always on or not needed here"},
}

// flagger is an application or a command.
type flagger interface {
	Flag(name, help string) *kingpin.FlagClause
}

// acceptIdle makes c accept the flags of table, out of sight of --help.
func acceptIdle(c flagger, table []idleFlag) {
	for _, f := range table {
		clause := c.Flag(f.name, "No effect: "+f.reason+".").Hidden()
		switch f.kind {
		case idleBool:
			clause.SetValue(new(idleSwitch))
		case idleSecret:
			clause.SetValue(new(secret.Text))
		default:
			clause.SetValue(new(idleValue))
		}
	}
}

// warnIdle says once of each flag that was given why it does nothing.
func (p *process) warnIdle() {
	for _, table := range [][]idleFlag{commonIdle, receiveIdle} {
		for _, f := range table {
			if p.flags[f.name] != "" {
				p.log.Warn("flag has no effect", "flag", "--"+f.name, "reason", f.reason)
			}
		}
	}
}

// idleValue keeps what was given, so that status pages show it. An empty value is none.
type idleValue struct{ given []string }

// Set adds a value.
func (v *idleValue) Set(s string) error {
	if s = strings.TrimSpace(s); s != "" {
		v.given = append(v.given, s)
	}
	return nil
}

// String is all values.
func (v *idleValue) String() string { return strings.Join(v.given, ",") }

// IsCumulative lets the flag be given several times.
func (v *idleValue) IsCumulative() bool { return true }

// idleSwitch is the value of a flag without one.
type idleSwitch struct{ idleValue }

// IsBoolFlag says that the flag takes no value.
func (*idleSwitch) IsBoolFlag() bool { return true }
