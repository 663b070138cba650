package gossip

import (
	"strings"

	"github.com/hearth-metrics/hearth/internal/gokit"
)

// What a person can do when two processes do not understand each other.
const (
	plainThere = "it does not speak TLS: --gossip.tls-enabled is set here and not there; set it on all members or on none"
	plainHere  = "it speaks TLS: --gossip.tls-enabled is set there and not here; set it on all members or on none"
	distrusted = "the certificate is not accepted: compare --gossip.tls-ca, --gossip.tls-cert and --gossip.tls-server-name"
)

// libraryMessages are parts of messages that memberlist and dskit's store log, with the text that is logged instead.
// Those without a text become debug lines: this package itself logs once that a member cannot be reached, while the
// library logs it in many ways and at each try.
var libraryMessages = []gokit.Words{
	{Theirs: "first record does not look like a TLS handshake",
		Ours: "a process gossips with this one without TLS: " + plainThere},
	{Theirs: "msgType=[22]", Ours: "a process gossips with this one in TLS: " + plainHere},
	{Theirs: "bad certificate", Ours: "gossip is refused: " + distrusted},
	{Theirs: "unknown certificate", Ours: "gossip is refused: " + distrusted},
	{Theirs: "x509:", Ours: "gossip is refused: " + distrusted},
	{Theirs: "unknown message type", Ours: "something that is no member of a cluster connects to the gossip port"},
	{Theirs: "unacceptable label", Ours: "a process of another cluster gossips with this one: compare " +
		"--gossip.cluster-label and --gossip.join"},
	{Theirs: "Conflicting address", Ours: "two processes gossip under one name"},
	{Theirs: "queue full", Ours: "more is gossiped than this process can work on, and some is dropped"},
	{Theirs: "Too many pending push/pull", Ours: "more members exchange their state than this process can work on"},
	{Theirs: "value too long", Ours: "what is gossiped has become too long"},
	{Theirs: "limit is", Ours: "what is gossiped has become too long"},
	{Theirs: "unknown codec", Ours: "another version of Hearth gossips something that this one does not know"},
	{Theirs: "protocol version", Ours: "another version of Hearth gossips in a way that this one does not know"},

	{Theirs: "shutting down"}, {Theirs: "shutdown"}, {Theirs: "Leave but"}, {Theirs: "when leaving"},
	{Theirs: "left the queue"},
	{Theirs: "unexpected node"}, {Theirs: "Refuting"}, {Theirs: "UDP probes failed"}, {Theirs: "without encryption"},
	{Theirs: "Failed to send"}, {Theirs: "failed to receive"}, {Theirs: "Failed to receive"}, {Theirs: "Failed fallback"},
	{Theirs: "Failed to forward"}, {Theirs: "Push/Pull with"}, {Theirs: "Failed to read remote state"},
	{Theirs: "Failed to push local state"}, {Theirs: "failed to read message type"}, {Theirs: "error while reading"},
	{Theirs: "not enough data received"}, {Theirs: "WriteTo failed"}, {Theirs: "failed to resolve"}, {Theirs: "lookup"},
	{Theirs: "oining memberlist cluster"}, {Theirs: "accepting TCP connection"},
}

// reachFaults are parts of the library's errors about a member that it cannot join, with what a person can do.
var reachFaults = []struct{ theirs, ours string }{
	{"first record does not look like a TLS handshake", plainThere},
	{"invalid msgType (21)", plainHere},
	{"x509:", distrusted},
	{"remote error: tls:", distrusted},
	{connRefused, "nothing listens there: is it up, and is the port that of --gossip.address?"},
	{"i/o timeout", "no answer: does a firewall keep the port closed?"},
	{"no route to host", "there is no way to this address"},
	{"EOF", unclear}, {"connection reset", unclear}, {"invalid msgType", unclear},
}

const unclear = "the connection is closed: compare --gossip.tls-enabled and --gossip.cluster-label, and is the port " +
	"that of --gossip.address?"

const connRefused = "connection refused"

// refused reports whether err says of a member that cannot be joined that nothing listens at its address. The library
// gives the system's error as a text.
func refused(err error) bool { return strings.Contains(err.Error(), connRefused) }

// reachFault is the text for a member at addr that cannot be joined.
func reachFault(addr string, err error) string {
	text := err.Error()
	for _, f := range reachFaults {
		if strings.Contains(text, f.theirs) {
			return addr + ": " + f.ours
		}
	}
	return addr + ": " + strings.Join(strings.Fields(text), " ")
}
