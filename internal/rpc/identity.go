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

// keyData is the header of a response that names the process whose data it holds: an instance id, a space, and the
// time when its data directory was new, in Unix ms.
const keyData = "hearth-data"

// sendIdentity names the process in the header of the response. Sources without an identity send none.
func sendIdentity(ctx context.Context, sources []series.Source) {
	for _, src := range sources {
		if own, ok := src.(series.Identified); ok {
			id := own.Identity()
			_ = grpc.SetHeader(ctx, metadata.Pairs(keyData, id.Instance+" "+strconv.FormatInt(id.Since.UnixMilli(), 10)))
			return
		}
	}
}

// readIdentity passes the identity in a response's header to series.TellIdentity.
func readIdentity(ctx context.Context, header metadata.MD) {
	for _, text := range header.Get(keyData) {
		instance, since, _ := strings.Cut(text, " ")
		if ms, err := strconv.ParseInt(since, 10, 64); err == nil {
			series.TellIdentity(ctx, series.Identity{Instance: instance, Since: time.UnixMilli(ms)})
		}
	}
}

// identityStream reads the identity before it returns the first response.
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
