package rpc

import (
	"fmt"
	"sync"

	_ "github.com/grafana/dskit/grpcencoding/snappy" // peers may compress with snappy
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// codec is protobuf. Each server and connection gets it as an option. It is not registered, so that other users of
// gRPC in the process keep their own. Messages of internal/pb use their generated code. The frames of the hot paths
// encode and decode themselves.
type codec struct{}

// outgoing is a message that is encoded already. gRPC owns the buffers afterwards, and frees them.
type outgoing interface{ buffers() mem.BufferSlice }

// incoming is a message that decodes itself. gRPC owns data, so decode copies everything that shall stay.
type incoming interface {
	decode(data mem.BufferSlice) error
}

// generated is a message with code from protoc-gen-go-vtproto.
type generated interface {
	SizeVT() int
	MarshalToSizedBufferVT(dst []byte) (int, error)
	UnmarshalVT(data []byte) error
}

func (codec) Name() string { return "proto" }

func (codec) Marshal(v any) (mem.BufferSlice, error) {
	switch m := v.(type) {
	case outgoing:
		return m.buffers(), nil
	case generated:
		pool := mem.DefaultBufferPool()
		buf := pool.Get(m.SizeVT())
		if _, err := m.MarshalToSizedBufferVT(*buf); err != nil {
			pool.Put(buf)
			return nil, err
		}
		return mem.BufferSlice{mem.NewBuffer(buf, pool)}, nil
	case proto.Message:
		b, err := proto.Marshal(m)
		return mem.BufferSlice{mem.SliceBuffer(b)}, err
	}
	return nil, fmt.Errorf("%T is no protobuf message", v)
}

func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	if m, ok := v.(incoming); ok {
		return m.decode(data)
	}
	buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buf.Free()
	switch m := v.(type) {
	case generated:
		return m.UnmarshalVT(buf.ReadOnlyData())
	case proto.Message:
		return proto.Unmarshal(buf.ReadOnlyData(), m)
	}
	return fmt.Errorf("%T is no protobuf message", v)
}

// maxRequest is the largest request, in bytes, of a call that is not a write. A few bytes of such a request can become
// a hundred in memory, and a read reserves no memory before it is decoded.
const maxRequest = 4 << 20

// serverCodec is the codec of requests. Messages that decode themselves (incoming) check their own bounds.
type serverCodec struct{ codec }

// Unmarshal decodes a request.
func (c serverCodec) Unmarshal(data mem.BufferSlice, v any) error {
	if _, ok := v.(incoming); !ok && data.Len() > maxRequest {
		return fmt.Errorf("a request of %d bytes, more than the %d that one of this kind may have", data.Len(), maxRequest)
	}
	return c.codec.Unmarshal(data, v)
}

// encoded is an outgoing message in two parts: a few bytes, and a body from frames.
type encoded struct {
	head []byte
	body *[]byte // nil = none
}

func (e *encoded) buffers() mem.BufferSlice {
	out := mem.BufferSlice{mem.SliceBuffer(e.head)}
	if e.body != nil {
		out = append(out, mem.NewBuffer(e.body, frames))
	}
	return out
}

// size is the length of the message in bytes.
func (e *encoded) size() int {
	if e.body == nil {
		return len(e.head)
	}
	return len(e.head) + len(*e.body)
}

// frames recycles the bodies of outgoing frames.
var frames = &framePool{}

// keepFrame is the largest body, in bytes, that is kept for reuse.
const keepFrame = 8 << 20

type framePool struct{ pool sync.Pool }

// empty returns a buffer to append to. Exactly one Put, by us or by gRPC, gives it back.
func (p *framePool) empty() *[]byte {
	if b, ok := p.pool.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, 0, 16<<10)
	return &b
}

// Get is part of gRPC's interface. It does not use the pool.
func (p *framePool) Get(length int) *[]byte {
	b := make([]byte, length)
	return &b
}

// Put takes a buffer back.
func (p *framePool) Put(b *[]byte) {
	if cap(*b) > keepFrame {
		return
	}
	*b = (*b)[:0]
	p.pool.Put(b)
}
