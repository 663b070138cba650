package rpc

import (
	"context"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/hearth-metrics/hearth/internal/series"
)

// keyData is the header of an answer that says whose data it is from: an instance id, a space, and the start of the data on
// its disk in Unix ms.
const keyData = "hearth-data"

// testify puts into the header of an answer whose data it is from. Sources of a process that has none say nothing.
func sendIdentity(ctx context.Context, sources []series.Source) {
	for _, src := range sources {
		if own, ok := src.(series.Identified); ok {
			id := own.Identity()
			_ = grpc.SetHeader(ctx, metadata.Pairs(keyData, id.Instance+" "+strconv.FormatInt(id.Since.UnixMilli(), 10)))
			return
		}
	}
}

// hear tells whoever asked with ctx what the header of an answer says.
func readIdentity(ctx context.Context, header metadata.MD) {
	for _, text := range header.Get(keyData) {
		instance, since, _ := strings.Cut(text, " ")
		if ms, err := strconv.ParseInt(since, 10, 64); err == nil {
			series.TellIdentity(ctx, series.Identity{Instance: instance, Since: time.UnixMilli(ms)})
		}
	}
}

// heardStream is a stream of answers that is heard before its first message is handed on.
type identityStream struct {
	grpc.ClientStream
	read bool
}

func (s *identityStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if s.read {
		return err
	}
	s.read = true
	if header, herr := s.Header(); herr == nil {
		readIdentity(s.Context(), header)
	}
	return err
}
