pub mod detector;
pub mod encoded;
pub mod figures;
pub mod picture;
pub mod sample;
pub mod score;
