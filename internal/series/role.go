package series

// The roles of a process, as Info.Role, the rings of gossip and Thanos's Info name them. They are on the wire and in
// files (the directory of a receiver names its role), so a name never changes.
const (
	RoleReceive     = "receive"
	RoleStore       = "store"
	RoleQuery       = "query"
	RoleCompact     = "compact"
	RoleRule        = "rule"
	RoleSidecar     = "sidecar"
	RoleDistributor = "distributor"
)
