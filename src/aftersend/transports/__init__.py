"""The rack of transports: how a parcel leaves the house."""
