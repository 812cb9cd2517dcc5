//! The sandbox's promises, over real HTTP.
